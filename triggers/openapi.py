"""The OpenAPI document: FastAPI's, with every status, header and the parameters of each job type."""

import copy
import hashlib
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from jobs.parameter_schema import to_json_schema
from triggers.api_models import Query
from triggers.ports import JobTypes
from triggers.problems import PROBLEM_MEDIA_TYPE

Json = dict[str, Any]

# Of the Functions host, which checks it.
_KEY = "x-functions-key"
_OF_GATEWAYS = {field.alias or name for name, field in Query.model_fields.items()}
_SUBMIT = "/api/jobs/submit/{job_type}"
_WHAT = {
    400: "The request cannot be understood, or its values cannot be used: `errors` names them",
    401: "A key is missing or wrong: the function key, or the one that carries a role",
    403: "The caller's role is too low",
    404: "There is no such thing",
    405: "The path does not know this method",
    409: "What the state of the job does not allow",
    410: "The job has ended",
    411: "A body was announced that did not arrive: send it with a Content-Length",
    413: "The body is larger than 1 MiB, that of many submissions than 8 MiB",
    415: "The body is not JSON in UTF-8, or does not say so",
    422: "The Idempotency-Key came before with another content",
    429: "Too many requests wait; come again later",
    500: "An error that is not the request's fault",
    503: "The database or a queue cannot be reached, or the app is not set up",
}
_EVERYWHERE = (400, 401, 403, 405, 429, 500, 503)
_WITH_BODY = (411, 413, 415)
_RETRY_AFTER = {"Retry-After": ("integer", "Seconds until it is worth asking again.")}
_LOCATION = {"Location": ("string", "Where to look at the job.")}
_OPERATION = {"Operation-Location": ("string", "Where Azure's clients poll.")}
_TAG = {"ETag": ("string", "For `If-None-Match` of the next request.")}
_APPLIED = {"Preference-Applied": ("string", "`wait=<seconds>`, where it was asked for.")}
_REPLAYED = {"Idempotency-Replayed": ("string", "`true`: this is what an earlier request with the key made.")}
_EXTRA: dict[str, tuple[int, ...]] = {
    "submit_job": (404, 409, 422),
    "submit_batch": (),
    "get_submission_schema": (),
    "act_on_jobs": (409,),
    "delete_job": (404, 409),
    "hold_job": (404,),
    "release_job": (404,),
    "list_audit": (),
    "start_instance": (404, 409),
    "terminate_instance": (404, 410),
    "suspend_instance": (404, 410),
    "resume_instance": (404, 410),
    "rewind_instance": (404, 409),
    "cancel_job": (404, 409),
    "pause_job": (404, 409),
    "resume_job": (404, 409),
    "rerun_job": (404, 409),
    "adjust_job": (404, 409),
    "list_jobs": (),
    "list_job_types": (),
    "livez": (),
    "readyz": (),
    "list_dead_letters": (),
    "redrive_dead_letters": (),
    "list_schedules": (),
    "list_apps": (),
    "list_queues": (),
    "put_schedule": (409,),
    "resume_schedule": (404, 409),
    "run_schedule": (404, 409),
    "list_limits": (),
    "put_limit": (),
    "list_webhooks": (),
    "put_webhook": (409,),
    "rotate_webhook_secret": (404, 409),
    "test_webhook": (404,),
    "redeliver": (404,),
}
_HEADERS: dict[str, Json] = {
    "submit_job": {**_LOCATION, **_OPERATION, **_RETRY_AFTER, **_APPLIED, **_REPLAYED},
    "rerun_job": {**_LOCATION, **_OPERATION, **_RETRY_AFTER},
    "get_job": {**_RETRY_AFTER, **_APPLIED, **_TAG},
    "get_operation": {**_RETRY_AFTER, **_TAG},
    "poll_job": {**_LOCATION, **_RETRY_AFTER},
    "start_instance": {**_LOCATION, **_RETRY_AFTER},
    "get_instance": {**_LOCATION, **_RETRY_AFTER},
}


def describe(api: FastAPI, job_types: JobTypes | None) -> Json:
    """The whole document.

    Args:
        job_types: Each gets a path of its own, with its parameters as the body. None while the app cannot say.
    """
    document = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
    schemas = document["components"]["schemas"]
    for item in document["paths"].values():
        for operation in item.values():
            _complete(operation, schemas)
            # With no key where the app is set up without; probes never have one.
            operation["security"] = [] if operation["operationId"] == "livez" else [{_KEY: []}, {}]
    document["components"]["securitySchemes"] = {_KEY: {"type": "apiKey", "in": "header", "name": _KEY}}
    if job_types is not None:
        submit = document["paths"].pop(_SUBMIT)["post"]
        document["paths"] = dict(_submit_paths(submit, job_types)) | document["paths"]
    return document


def _complete(operation: Json, schemas: Json) -> None:
    responses, name = operation["responses"], operation["operationId"]
    responses.pop("default", None)
    has_body = "requestBody" in operation
    for status in sorted({*_EVERYWHERE, *(_WITH_BODY if has_body else ()), *_EXTRA.get(name, (404,))}):
        responses.setdefault(str(status), _problem(status))
    for status in responses:
        if status.startswith("2"):
            responses[status]["headers"] = _headers(_HEADERS.get(name, {}))
    operation["responses"] = dict(sorted(responses.items()))
    # Those of gateways mean nothing here; the document names them once, at its beginning.
    given = [found for found in operation.get("parameters", []) if found["name"] not in _OF_GATEWAYS]
    operation.pop("parameters", None)
    if given:
        operation["parameters"] = given
    if has_body:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        schemas.update(schema.pop("$defs", {}))


def _problem(status: int) -> Json:
    headers = _RETRY_AFTER if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE} else {}
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ("string", "The methods that it knows.")}
    return {
        "description": _WHAT[status],
        "headers": _headers(headers),
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _headers(described: Json) -> Json:
    return {name: {"description": text, "schema": {"type": kind}} for name, (kind, text) in described.items()}


def _identifier(job_type: str) -> str:
    """For generated clients, and of this type alone: `a-b` and `a.b` are not the same as `a_b`."""
    name = re.sub("[^A-Za-z0-9_]", "_", job_type)
    return name if name == job_type else f"{name}_{hashlib.sha256(job_type.encode()).hexdigest()[:8]}"


def _submit_paths(submit: Json, job_types: JobTypes) -> Iterator[tuple[str, Json]]:
    for job_type in job_types.job_types:
        job = job_types.get_job(job_type)
        operation = copy.deepcopy(submit)
        schema = to_json_schema(job.parameters_schema)
        schema.pop("$schema")
        operation["operationId"] = f"submit_{_identifier(job_type)}"
        operation["summary"] = f"Submit {job_type}"
        operation["description"] = f"{job.description}\n\n{operation.get('description', '')}".strip()
        operation["parameters"] = [each for each in operation["parameters"] if each["in"] != "path"]
        operation["requestBody"] = {
            "required": bool(schema.get("required")),
            "content": {"application/json": {"schema": schema}},
        }
        yield _SUBMIT.replace("{job_type}", job_type), {"post": operation}
