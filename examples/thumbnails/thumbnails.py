"""A thumbnail of every picture in a folder; what is no picture fails alone, at its first attempt."""

from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from coremachine import Job, Stage, TaskContext, handler


class Thumbnails(Job):
    job_type = "thumbnails"
    parameters_schema: ClassVar = {
        "source": {"type": "str", "format": "path", "required": True},
        "target": {"type": "str", "format": "path", "required": True},
        "pixels": {"type": "int", "default": 256, "min": 16, "max": 4096},
    }
    stages: ClassVar = [
        Stage("picture_names"),
        Stage("thumbnail", over="names", failure="continue", retry={"never": ["PIL.UnidentifiedImageError"]}),
    ]


@handler("picture_names")
def list_pictures(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    Path(context.job_parameters["target"]).mkdir(parents=True, exist_ok=True)
    return {"names": sorted(path.name for path in Path(context.job_parameters["source"]).iterdir())}


@handler("thumbnail")
def make_thumbnail(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    wanted, name = context.job_parameters, params["item"]
    target, unfinished = Path(wanted["target"], f"{name}.jpg"), Path(wanted["target"], f".{context.lease_id}.jpg")
    with Image.open(Path(wanted["source"], name)) as picture:
        picture.thumbnail((wanted["pixels"], wanted["pixels"]))
        picture.convert("RGB").save(unfinished)
    unfinished.replace(target)  # each attempt writes a file of its own, and the last whole one stays
    return {"width": picture.width, "height": picture.height}
