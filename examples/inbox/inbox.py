"""An inbox of files of several kinds: each kind has its own handler, and what has none is reported."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from coremachine import CompletedTask, FanInResults, Job, PermanentTaskError, Stage, Task, TaskContext, handler

# The branches: which handler has a file, by its ending.
TASK_TYPES = {".csv": "inbox_csv", ".json": "inbox_json"}


class Inbox(Job):
    job_type = "inbox"
    description = "records of the files in an inbox, by kind"
    parameters_schema: ClassVar = {"folder": {"type": "str", "format": "path", "required": True}}
    stages: ClassVar = [
        Stage("inbox_list"),
        # The stage's own task type is that of the tasks which name no other one.
        Stage("inbox_file", "fan_out", task_type="inbox_other", failure={"on_failure": "continue"}),
        Stage("inbox_summary", "fan_in"),
    ]

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: Mapping[str, Any], job_id: str, previous_results: Iterable[CompletedTask]
    ) -> Iterator[Task]:
        if stage == 1:
            yield Task(name="list")
        for listing in previous_results:
            for name in listing.result["names"]:
                yield Task(name=name, parameters={"name": name}, task_type=TASK_TYPES.get(Path(name).suffix))


@handler("inbox_list")
def list_files(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    return {"names": sorted(path.name for path in Path(context.job_parameters["folder"]).iterdir())}


@handler("inbox_csv")
def read_csv(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    with Path(context.job_parameters["folder"], params["name"]).open(newline="", encoding="utf-8") as file:
        return {"kind": "csv", "records": sum(1 for _ in csv.DictReader(file))}


@handler("inbox_json")
def read_json(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    records = json.loads(Path(context.job_parameters["folder"], params["name"]).read_text(encoding="utf-8"))
    return {"kind": "json", "records": len(records)}


@handler("inbox_other")
def refuse(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    raise PermanentTaskError(f"expected a file that ends in {' or '.join(TASK_TYPES)}, found {params['name']}")


@handler("inbox_summary")
def summarize(files: FanInResults, context: TaskContext) -> dict[str, Any]:
    records: Counter[str] = Counter()
    for file in files.results():
        records[file.result["kind"]] += file.result["records"]
    return {"records": records, "refused": {file.name: file.error["message"] for file in files.failures()}}
