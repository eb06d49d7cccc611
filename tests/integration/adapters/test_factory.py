"""From settings to a machine: real PostgreSQL, real SDK, the project's own broker."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from core.models.message import JOBS_QUEUE_MESSAGE, TaskQueueMessage
from core.models.submission import SubmitRequest
from infrastructure import RepositoryFactory, load_settings
from infrastructure import factory as factory_module
from infrastructure.base import ConnectionsInUse
from jobs.hello_world import HANDLERS, HelloWorldJob
from jobs.registry import Registry
from tests.databases import empty_database


@pytest.fixture(scope="module")
def settings(postgres_url, project_broker):
    with empty_database(postgres_url, "of_factory") as url:
        yield load_settings({"COREMACHINE_DATABASE_URL": url, "ServiceBusConnection": project_broker.connection_string})


@pytest.fixture
def factory(settings):
    factory = RepositoryFactory(settings)
    yield factory
    factory.close()


def test_repositories_are_made_once_for_all_threads(factory):
    """Each message opened many connections and asked for the schema each time; a database fell over under a few
    workers (lesson D1).
    """
    made = []
    threads = [threading.Thread(target=lambda: made.append(factory.create_repositories())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 8
    assert all(each is made[0] for each in made)


def test_a_process_has_as_many_slots_as_the_setting_says(settings):
    """Too many raster tasks at once ran out of memory (lesson D41)."""
    factory = RepositoryFactory(settings.model_copy(update={"task_threads": 3}))
    machine = factory.create_machine(Registry([HelloWorldJob], HANDLERS, ["tasks", "raster"]))
    assert machine._runner._parts.slots.count == 3
    factory.close()


def test_session_that_all_connections_wait_for_is_named(settings, monkeypatch):
    monkeypatch.setattr(factory_module, "_PROBE_SECONDS", 0.5)
    factory = RepositoryFactory(settings.model_copy(update={"pool_size": 1}))
    repositories = factory.create_repositories()
    repositories.jobs._ensure_schema_exists()
    with (
        psycopg.connect(settings.database_url.get_secret_value(), application_name="somebody") as owner,
        ThreadPoolExecutor() as threads,
    ):
        owner.execute("lock table app.jobs in access exclusive mode")
        waiting = threads.submit(repositories.queries.find_job_status, "a" * 64)
        while not owner.execute("select from pg_locks where not granted").fetchall():
            pass
        with pytest.raises(ConnectionsInUse) as caught:
            factory.schema_status()
        assert f"session {owner.info.backend_pid} (application somebody, " in caught.value.held_up_by
        assert f"pg_terminate_backend({owner.info.backend_pid})" in caught.value.held_up_by
        owner.rollback()
        assert waiting.result() is None
    assert factory.schema_status().is_current
    factory.close()


def test_a_closed_factory_makes_new_ones(factory):
    first = factory.create_repositories()
    factory.close()
    factory.close()
    assert factory.create_repositories() is not first


def test_a_job_runs_over_the_real_broker(factory, project_broker, receive):
    repositories = factory.create_repositories()
    repositories.jobs._ensure_schema_exists()
    for queue in factory.settings.queue_names.values():
        project_broker.purge(queue)
    machine = factory.create_machine(Registry([HelloWorldJob], HANDLERS, ["tasks", "raster"]))

    job_id = machine.submit_job(SubmitRequest("hello_world", {})).job_id
    for _ in range(20):
        for body in receive("coremachine-jobs"):
            machine.process_job_message(JOBS_QUEUE_MESSAGE.validate_json(body))
        for body in receive("coremachine-tasks"):
            machine.process_task_message(TaskQueueMessage.model_validate_json(body))
        job = repositories.jobs.find_job(job_id)
        if job.status.is_terminal:
            break
    assert job.status == "completed"


@pytest.fixture
def receive(project_broker):
    """Takes what is in a queue now."""
    from azure.servicebus import ServiceBusClient

    receivers = {}
    with ServiceBusClient.from_connection_string(project_broker.connection_string) as client:

        def take(queue):
            if project_broker.counts(queue)["active"] == 0:
                return []
            if queue not in receivers:
                receivers[queue] = client.get_queue_receiver(queue, receive_mode="receiveanddelete")
            return [str(message) for message in receivers[queue].receive_messages(100, max_wait_time=1)]

        yield take
        for receiver in receivers.values():
            receiver.close()
