// The key that opened this page opens what it asks for, too.
const key = new URLSearchParams(location.search).get("code");
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  requestInterceptor: (request) => {
    const sameOrigin = new URL(request.url, location.href).origin === location.origin;
    if (key && sameOrigin && !request.headers["x-functions-key"]) {
      request.headers["x-functions-key"] = key;
    }
    return request;
  },
});
