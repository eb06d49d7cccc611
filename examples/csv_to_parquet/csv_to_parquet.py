"""CSV files from a server that is not always well, as Parquet; the job fails if too many of them are missing."""

import urllib.request
from pathlib import Path
from typing import Any, ClassVar

from pyarrow import csv, parquet

from coremachine import FanInResults, Job, Stage, TaskContext, handler


class CsvToParquet(Job):
    job_type = "csv_to_parquet"
    parameters_schema: ClassVar = {
        "urls": {"type": "list", "items": {"type": "str", "pattern": "https?://.+"}, "required": True, "min": 1},
        "target": {"type": "str", "format": "path", "required": True},
    }
    stages: ClassVar = [
        Stage("csv_file", over="urls", retry={"max_attempts": 5}, failure={"max_failed_percent": 20}),
        Stage("csv_total", "fan_in"),
    ]


@handler("csv_file")
def convert(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    target = Path(context.job_parameters["target"], f"{context.task_id}.parquet")
    target.parent.mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(params["item"], timeout=30) as answer:  # noqa: S310 - the pattern admits http alone
        table = csv.read_csv(answer)
    parquet.write_table(table, unfinished := target.with_name(f".{context.lease_id}"))
    return {"file": unfinished.replace(target).name, "rows": table.num_rows}


@handler("csv_total")
def total(files: FanInResults, context: TaskContext) -> dict[str, Any]:
    return {"rows": sum(task.result["rows"] for task in files.results()), "missing": [t.name for t in files.failures()]}
