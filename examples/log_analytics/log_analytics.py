"""A report of web server logs: requests and errors per path, from every file of a folder."""

import gzip
import re
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from coremachine import FanInResults, Job, Stage, TaskContext, handler

REQUEST = re.compile(r'"[A-Z]+ (?P<path>[^ ?"]+)[^"]*" (?P<status>\d{3}) ')
DAMAGE = ["gzip.BadGzipFile", "EOFError", "zlib.error"]


class LogAnalytics(Job):
    job_type = "log_analytics"
    description = "requests and errors per path of web server logs"
    parameters_schema: ClassVar = {
        "folder": {"type": "str", "format": "path", "required": True, "description": "where the .log and .log.gz are"},
        "top": {"type": "int", "default": 10, "min": 1, "max": 1000, "description": "how many paths to report"},
    }
    stages: ClassVar = [
        Stage("log_files"),
        Stage("log_file", over="files", retry={"never": DAMAGE}, failure={"max_failed_percent": 10}),
        Stage("log_report", "fan_in"),
    ]


@handler("log_files")
def list_files(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    folder = Path(context.job_parameters["folder"])
    return {"files": sorted(path.name for path in folder.iterdir() if path.name.endswith((".log", ".log.gz")))}


@handler("log_file")
def count_requests(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    path = Path(context.job_parameters["folder"], params["item"])
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        found = [match for match in map(REQUEST.search, lines) if match]
    errors = Counter(match["path"] for match in found if match["status"] >= "500")
    return {"requests": Counter(match["path"] for match in found), "errors": errors}


@handler("log_report")
def report(files: FanInResults, context: TaskContext) -> dict[str, Any]:
    requests, errors = Counter[str](), Counter[str]()
    for file in files.results():
        requests.update(file.result["requests"])
        errors.update(file.result["errors"])
    top = [[path, count, errors[path]] for path, count in requests.most_common(context.job_parameters["top"])]
    return {"requests": requests.total(), "errors": errors.total(), "top": top}
