"""Whatever happens in whatever order, no limit is exceeded, and no task of a stage with limits is lost or starves."""

from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from core.models import Lease
from infrastructure.janitor_store import JanitorRepository
from infrastructure.verify import verify
from tests.stories import examples, many_more

from .test_limits import ERROR, limited, set_limit, turn_clock

TASKS, JOBS, STEP = 6, 3, 2.0
# Of all jobs, of two of them with another one, and of one alone.
LIMITS = (("a",), ("a", "b"), ("b", "c"))
numbers = st.integers(1, 4)
rates = st.one_of(st.none(), st.integers(1, 4))
events = st.one_of(
    st.tuples(st.sampled_from(["deliver", "deliver", "end", "end", "fail", "release"]), st.integers(0, 5)),
    st.tuples(st.sampled_from(["serve", "tick", "die", "lose", "duplicate", "lapse"]), st.integers(0, 5)),
    st.tuples(st.just("set"), st.integers(0, 4)),
)


class Driver:
    """Some jobs of one stage each, messages in memory, and processes that die between any two calls."""

    def __init__(self, engine, at_once, rate):
        self.engine, self.janitor = engine, JanitorRepository(engine.pool)
        self.now = 0.0
        turn_clock(engine, 0)
        self.numbers = {"a": at_once, "b": at_once, "c": at_once}
        self.rate = rate
        declared = {"retry": {"max_attempts": 100, "base_delay_seconds": 1e-6}, "max_interruptions": 100}
        rated = {} if rate is None else {"rate": f"{rate}/10s"}
        self.refs = [
            limited(engine, TASKS, *({"name": name, "at_once": at_once, **rated} for name in names), **declared)
            for names in LIMITS
        ]
        self.queue, self.running, self.begun, self.most = [], [], {"a": [], "b": [], "c": []}, dict(self.numbers)

    def send(self, event, number):
        match event:
            case "deliver":
                self.deliver(number)
            case "end" | "fail" | "release":
                self.end(number, event)
            case "serve":
                self.serve()
            case "tick":
                self.now += STEP
                turn_clock(self.engine, self.now)
            case "die":
                self.die()
            case "lose":
                self.queue[:1] = []
            case "duplicate":
                self.queue += self.queue[:1]
            case "lapse":
                self.engine.execute("update app.limit_places set ends_at = app.clock() where not has_begun")
            case "set":
                set_limit(self.engine, "a", number, self.rate, None if self.rate is None else 10)
                self.numbers["a"] = number
                self.most["a"] = max(number, self.holders("a"))
        self.check()

    def deliver(self, number):
        if not self.queue:
            return
        ref, task_id, due = self.queue.pop(number % len(self.queue))
        if due > self.now:
            self.queue.append((ref, task_id, due))
            return
        lease = uuid4()
        (row,) = self.engine.tasks.claim_tasks(ref, [task_id], lease=Lease(lease, "w"))
        if row.outcome == "claimed":
            self.running.append((ref, task_id, lease, self.now))
            for name in LIMITS[self.refs.index(ref)]:
                self.begun[name].append(self.now)

    def end(self, number, event):
        if not self.running:
            return
        ref, task_id, lease, claimed_at = self.running.pop(number % len(self.running))
        match event:
            case "end":
                self.engine.stages.complete_task_and_check_stage(ref, lease_id=lease, results={task_id: {}})
            case "fail":
                self.engine.stages.increment_task_retry_count(
                    ref, task_id, lease_id=lease, error=ERROR, delay_seconds=0
                )
            case "release":
                # Its process had no slot for it: its handler did not begin.
                self.engine.tasks.release_tasks(ref, lease_id=lease, task_ids=[task_id], started=False)
                for name in LIMITS[self.refs.index(ref)]:
                    self.begun[name].remove(claimed_at)
        if event != "end":
            self.queue.append((ref, task_id, self.now))
        self.most["a"] = max(self.numbers["a"], self.holders("a"))

    def die(self):
        """All processes, and their leases run out."""
        self.engine.execute("update app.tasks set lease_expires_at = app.clock() where status = 'processing'")
        for ref in self.janitor.find_expired_stages(100):
            self.engine.stages.take_back_tasks(ref)
        self.running = []
        self.most = dict(self.numbers)

    def serve(self):
        for ref in self.engine.tasks.find_limit_waiters(None, 16):
            for task in self.engine.tasks.take_limited_tasks(ref):
                self.queue.append((ref, task.task_id, self.now + task.wait_seconds))
                self.engine.tasks.mark_tasks_announced(ref.job_ref, [task.task_id])

    def holders(self, name):
        return sum(name in LIMITS[self.refs.index(ref)] for ref, *_ in self.running)

    def check(self):
        for name, most in self.most.items():
            assert self.holders(name) <= most
            (held,) = self.engine.query(
                "select count(*) as n from app.limit_places where limit_name = %s and has_begun", name
            )
            assert held["n"] == self.holders(name)
            if self.rate is not None:
                assert sum(moment > self.now - 10 for moment in self.begun[name]) <= self.rate

    def finish(self):
        """Work goes on without faults; what messages were lost, the janitor finds."""
        self.send("set", 2)
        for _ in range(400):
            self.send("serve", 0)
            while self.running:
                self.send("end", 0)
            for message in [each for each in self.queue if each[2] <= self.now]:
                self.send("deliver", self.queue.index(message))
            if not self.running:
                self.send("tick", 0)
                self.send("lapse", 0)
                self.find_lost()
            if self.is_over():
                return
        raise AssertionError("a task starves")

    def find_lost(self):
        """The janitor's other find shows what is lost, by the queue; here the queue itself does."""
        waiting = {(ref.job_id, task_id) for ref, task_id, _ in self.queue}
        rows = self.engine.query(
            "select job_id, task_id from app.tasks where announced_at is not null"
            " and status in ('queued', 'pending_retry') or (status = 'pending' and held_for is null and attempt > 0)"
            " or (status = 'pending_retry' and announced_at is null and held_for is null)"
        )
        by_job = {ref.job_id: ref for ref in self.refs}
        self.queue += [
            (by_job[row["job_id"]], row["task_id"], self.now)
            for row in rows
            if (row["job_id"], row["task_id"]) not in waiting
        ]

    def is_over(self):
        return all(self.engine.jobs.find_job(ref.job_id).status == "finalizing" for ref in self.refs)


STORIES = {"at_once": numbers, "rate": rates, "orders": st.lists(events, max_size=40)}


@examples(5)
@given(**STORIES)
def test_no_limit_is_exceeded_and_no_task_lost(clocked_engine, at_once, rate, orders):
    engine = clocked_engine
    engine.execute("delete from app.jobs")
    engine.execute("delete from app.limits")
    engine.execute("delete from app.limit_starts")
    engine.execute("delete from app.limit_places")
    engine.execute("delete from app.limit_waiters")
    driver = Driver(engine, at_once, rate)
    for event, number in orders:
        driver.send(event, number)
    driver.finish()
    assert engine.query("select * from app.limit_places where has_begun") == []
    assert verify(engine.pool) == []


test_no_limit_is_exceeded_in_many_stories = many_more(test_no_limit_is_exceeded_and_no_task_lost, 50, **STORIES)
