"""Which queue a task goes to: the deployment's route, the stage's queue, the handler's."""

import logging

import pytest

from core.models import StageDefinition
from core.orchestration_manager import AppRole, NoQueueForTask, OrchestrationManager
from infrastructure.settings import load_settings
from jobs.hello_world import HANDLERS, HelloWorldJob
from jobs.registry import Registry
from triggers.services import _tell_unused_routes

REGISTRY = Registry([HelloWorldJob], HANDLERS, ["tasks", "raster"])
CONNECTIONS = {
    "COREMACHINE_DATABASE_URL": "postgresql://x/y",
    "ServiceBusConnection": "Endpoint=sb://x;SharedAccessKeyName=n;SharedAccessKey=k",
}


def queue_for(task_type, *, stage_queue=None, routes=None):
    manager = OrchestrationManager(REGISTRY, None, AppRole(routes=routes or {}))
    stage = {"number": 1, "name": "s", "task_type": task_type, "parallelism": "single", "queue": stage_queue}
    return manager.queue_for(StageDefinition.model_validate(stage), task_type)


@pytest.mark.parametrize(
    ("stage_queue", "routes", "queue"),
    [
        (None, {}, "tasks"),
        ("raster", {}, "raster"),
        ("raster", {"hello_world_reply": "gpu"}, "gpu"),
        (None, {"hello_world_reply": "gpu"}, "gpu"),
        (None, {"other": "gpu"}, "tasks"),
    ],
)
def test_route_wins_over_the_stage_and_the_stage_over_the_handler(stage_queue, routes, queue):
    assert queue_for("hello_world_reply", stage_queue=stage_queue, routes=routes) == queue


def test_route_is_enough_for_a_task_type_of_another_app():
    assert queue_for("train", routes={"train": "gpu"}) == "gpu"
    with pytest.raises(NoQueueForTask, match="expected a handler for task type 'train'"):
        queue_for("train")


def test_route_of_a_task_type_that_nothing_here_names_is_logged(caplog):
    caplog.set_level(logging.INFO)
    routes = {"COREMACHINE_TASK_ROUTES": "hello_world_reply=raster,helo_world_reply=raster"}
    _tell_unused_routes(load_settings(CONNECTIONS | routes), REGISTRY)
    assert [(record.message, record.task_type, record.queue) for record in caplog.records] == [
        ("task_route_not_used", "helo_world_reply", "raster")
    ]
