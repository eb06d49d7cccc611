"""Whatever happens to messages and processes in whatever order, windows lose and double no task, and no job starves."""

from uuid import uuid4

from hypothesis import example, given
from hypothesis import strategies as st

from core.basics.canonical import encode_storable
from core.models import Lease, StageRef
from core.models.control import AdjustRequest
from core.models.transition import Completion, NextTasks
from core.operating.explain import explain
from infrastructure.insight import InsightQueries
from infrastructure.janitor_store import JanitorRepository
from infrastructure.verify import verify
from tests.stories import examples, many_more

TASKS, JOBS = 14, 3
ERROR = {"type": "OSError", "message": "not yet", "retryable": True}
OPEN = ("pending", "queued", "processing", "pending_retry")
events = st.one_of(
    st.tuples(st.sampled_from(["deliver", "deliver", "deliver", "retry"]), st.just(0)),
    st.tuples(st.sampled_from(["die_claimed", "die_begun", "die_completed"]), st.just(0)),
    # How many more tasks a message goes on with.
    st.tuples(st.sampled_from(["go_on", "go_on", "die_going_on"]), st.integers(1, 6)),
    st.tuples(st.sampled_from(["duplicate", "lose"]), st.just(0)),
    # How many tasks of a message are run before the others are released into the line, by a process that may die then.
    st.tuples(st.sampled_from(["split", "split", "die_split"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["take", "die_taken", "take_and_lose"]), st.integers(0, JOBS - 1)),
    st.tuples(st.sampled_from(["sweep", "take_back"]), st.just(0)),
    # Messages that are marked when others may have had their tasks.
    st.tuples(st.sampled_from(["hold_marks", "mark"]), st.just(0)),
    # How many tasks of a message that is too large are run.
    st.tuples(st.sampled_from(["return", "return", "die_returned"]), st.integers(1, 3)),
    # What people do to a job.
    st.tuples(st.sampled_from(["pause", "resume", "cancel"]), st.integers(0, JOBS - 1)),
    # The job, and its max_parallel from then on.
    st.tuples(st.just("adjust"), st.tuples(st.integers(0, JOBS - 1), st.sampled_from([1, 2, 5, None]))),
)


class Driver:
    """Some jobs of one stage each, a queue in memory, and processes that die between any two calls."""

    def __init__(self, engine, first, per_message, most):
        self.engine = engine
        self.janitor = JanitorRepository(engine.pool)
        self.most = most
        self.goes_on = most is None and per_message in {None, 1}
        # What max_parallel is by now, of the jobs whose number was changed.
        self.adjusted = {}
        self.cancelled = set()
        self.queue = []
        self.unmarked, self.holds_marks = [], False
        self.lost = []
        self.ran = {}
        self.refs = []
        for _ in range(JOBS):
            job_id = engine.submit(
                stages=1,
                tasks_per_message=per_message,
                max_parallel=most,
                max_interruptions=100,
                retry={"max_attempts": 100, "base_delay_seconds": 1e-6},
            )
            engine.plan(job_id, 1, TASKS, first_window=min(first, most or first))
            self.refs.append(StageRef(job_id, 1, 1))

    def send(self, event, number):
        match event:
            case "duplicate":
                self.queue += self.queue[:1]
            case "lose":
                self.lose(self.queue.pop(0) if self.queue else None)
            case "deliver" | "retry" | "die_claimed" | "die_begun" | "die_completed":
                self.deliver(self.queue.pop(0) if self.queue else None, ending=event)
            case "go_on" | "die_going_on" | "split" | "die_split":
                act = self.split if "split" in event else self.go_on
                act(self.queue.pop(0) if self.queue else None, number, dies=event.startswith("die"))
            case "take" | "die_taken" | "take_and_lose":
                self.take_some(self.refs[number], event)
            case "sweep" | "take_back" | "hold_marks" | "mark":
                getattr(self, event)()
            case "return" | "die_returned":
                self.return_to_line(self.queue.pop(0) if self.queue else None, number, dies=event == "die_returned")
            case "pause" | "resume" | "cancel" | "adjust":
                self.control(event, number)
        self.check()

    def take(self, ref, mean_seconds=None):
        """No more is taken than max_parallel permits, whatever it was before."""
        taken = self.engine.tasks.take_next_tasks(ref, mean_seconds)
        most = self.adjusted.get(ref, self.most)
        if taken and most is not None:
            (row,) = self.engine.query(
                "select count(*) as n from app.tasks t join app.stages s on s.job_id = t.job_id where t.job_id = %s"
                " and t.status in ('pending', 'queued', 'processing', 'pending_retry') and t.task_id <= s.window_after"
                " and not (t.status = 'pending' and t.announced_at is not null)"
                " and not (t.status = 'pending_retry' and t.announced_at is null and t.due_at <= now())",
                ref.job_id,
            )
            assert row["n"] <= most
        return taken

    def take_some(self, ref, event):
        taken = self.take(ref)
        if event == "take":
            self.announce(taken)
        elif event == "take_and_lose":
            ids = [task.task_id for task in taken]
            self.engine.tasks.mark_taken_tasks_announced(ref.job_ref, ids)
            self.lose((ref, ids))

    def announce(self, tasks, *, is_swept=False):
        for ref in self.refs:
            ids = [task.task_id for task in tasks if task.stage_ref == ref]
            size = max((task.tasks_per_message for task in tasks if task.stage_ref == ref), default=1)
            self.queue += [(ref, ids[i : i + size]) for i in range(0, len(ids), size)]
            if is_swept and ids:
                self.engine.tasks.mark_tasks_announced(ref.job_ref, ids)
            elif ids:
                self.unmarked.append((ref, ids))
        if not self.holds_marks:
            self.mark()

    def hold_marks(self):
        self.holds_marks = True

    def mark(self):
        self.holds_marks = False
        while self.unmarked:
            ref, ids = self.unmarked.pop()
            self.engine.tasks.mark_taken_tasks_announced(ref.job_ref, ids)
        while self.lost:
            self.find_lost(*self.lost.pop())

    def control(self, event, number):
        job_id = self.refs[number if event != "adjust" else number[0]].job_id
        match event:
            case "pause":
                self.engine.jobs.pause_job(job_id, reason=None, actor=None)
            case "resume":
                self.resume(self.refs[number])
            case "cancel":
                self.engine.jobs.cancel_job(job_id, None)
                self.cancelled.add(job_id)
            case "adjust":
                ref, most = self.refs[number[0]], number[1]
                answer = self.engine.jobs.adjust_job(job_id, AdjustRequest({"max_parallel": most}, stage=1))
                if answer.outcome == "adjusted":
                    self.adjusted[ref] = most
                    self.announce(self.take(ref))

    def resume(self, ref):
        answer = self.engine.jobs.resume_job(ref.job_id, reason=None, actor=None)
        if not answer.has_changed or answer.status != "processing":
            return
        for task in self.engine.jobs.find_parked_tasks(ref.job_id, 1000, 0.0):
            self.queue.append((ref, [task.task_id]))
            self.engine.jobs.unpark_tasks(ref.job_ref, [task.task_id], task.held_until)
        self.announce(self.take(ref))

    def return_to_line(self, message, number, *, dies):
        """It is known that the message has too much work: some of its tasks are run, the others have no claim."""
        if message is None:
            return
        ref, ids = message
        self.goes_on = self.most is None
        returned = set(self.engine.tasks.return_tasks_to_line(ref, ids[number:], 1.0))
        if dies:
            self.queue.append(message)  # it was not settled, and comes again
            return
        self.announce(self.take(ref, 1.0))
        self.deliver((ref, [task_id for task_id in ids if task_id not in returned]))

    def lose(self, message):
        """It is found at once; if its mark is to come, after that, as the janitor finds what was marked long ago."""
        if message is not None:
            self.find_lost(*message)
            if self.holds_marks:
                self.lost.append(message)

    def find_lost(self, ref, ids):
        """The janitor's other find shows that a message is lost, by the queue; here its dead letter does."""
        self.engine.execute(
            "update app.tasks set status = case status when 'queued' then 'pending' else status end,"
            " announced_at = null where job_id = %s and task_id = any(%s) and status in ('queued', 'pending_retry')",
            ref.job_id,
            ids,
        )

    def deliver(self, message, *, ending="complete"):
        if message is None:
            return
        ref, ids = message
        lease = uuid4()
        rows = self.engine.tasks.claim_tasks(ref, ids, lease=Lease(lease, "w"))
        claimed = [row.task_id for row in rows if row.outcome == "claimed"]
        if ending == "die_claimed":
            return
        self.fill(ref, at_end=False)
        if ending == "die_begun":
            return
        for task_id in claimed:
            if ending == "retry":
                answer = self.engine.stages.increment_task_retry_count(
                    ref, task_id, lease_id=lease, error=ERROR, delay_seconds=0
                )
                # Others have no message: who looks next takes them.
                if answer.outcome == "scheduled" and not answer.is_in_line:
                    self.queue.append((ref, [task_id]))
                    self.engine.tasks.mark_tasks_announced(ref.job_ref, [task_id])
            else:
                self.complete(ref, lease, task_id)
        if ending != "die_completed":
            self.fill(ref, at_end=True)

    def split(self, message, number, *, dies):
        """The tasks of a message last: some are run, the others are released, and the next messages are smaller."""
        if message is None:
            return
        ref, ids = message
        lease = uuid4()
        rows = self.engine.tasks.claim_tasks(ref, ids, lease=Lease(lease, "w"))
        claimed = [row.task_id for row in rows if row.outcome == "claimed"]
        self.fill(ref, at_end=False)
        # Messages of one task may go on.
        self.goes_on = self.most is None
        waiting = claimed[number:]
        if waiting:
            released = self.engine.tasks.release_tasks_into_line(
                ref, lease_id=lease, task_ids=waiting, started=False, mean_seconds=1.0
            )
            if ref.job_id not in self.cancelled:
                assert (set(released.task_ids), released.is_in_line) == (set(waiting), True)
            if dies:
                return
            self.announce(self.take(ref, 1.0))
        for task_id in claimed[:number]:
            self.complete(ref, lease, task_id)
        self.fill(ref, at_end=True)

    def complete(self, ref, lease, task_id):
        check = self.engine.stages.complete_task_and_check_stage(ref, lease_id=lease, results={task_id: {}})
        for updated in check.updated_ids:
            self.ran[ref, updated] = self.ran.get((ref, updated), 0) + 1

    def fill(self, ref, *, at_end):
        """A message fills its window as it begins, and where ends alone make room, at its end."""
        if at_end == (self.most is not None):
            self.announce(self.take(ref))

    def go_on(self, message, number, *, dies):
        """A message of one task whose process takes the next ones in line with each end, and may die with one taken."""
        if message is None or len(message[1]) != 1:
            self.deliver(message)
            return
        ref, ids = message
        lease = Lease(uuid4(), "w")
        rows = self.engine.tasks.claim_tasks(ref, ids, lease=lease)
        rows = [row for row in rows if row.outcome == "claimed"]
        self.fill(ref, at_end=False)
        for _ in range(number):
            if not rows:
                break
            (task_id,) = (row.task_id for row in rows)
            following = Lease(uuid4(), "w")
            ended = Completion(lease.lease_id, {task_id: encode_storable({}, "result")})
            check, rows = self.engine.stages.complete_tasks_and_claim_next(ref, [ended], NextTasks({"t"}, 1, following))
            if ref.job_id not in self.cancelled:
                assert check.updated_ids == (task_id,)
            for updated in check.updated_ids:
                self.ran[ref, updated] = self.ran.get((ref, updated), 0) + 1
            assert not rows or (self.adjusted[ref] is None if ref in self.adjusted else self.goes_on)
            lease = following
        if dies:
            return
        for row in rows:
            self.complete(ref, lease.lease_id, row.task_id)
        self.fill(ref, at_end=True)

    def take_back(self):
        self.engine.execute("update app.tasks set lease_expires_at = now() where status = 'processing'")
        for ref in self.janitor.find_expired_stages(100):
            self.engine.stages.take_back_tasks(ref)

    def sweep(self):
        self.announce(self.janitor.find_unannounced_tasks(1000, 0.0, 0.0), is_swept=True)
        for ref in self.janitor.find_idle_windows(100, 0.0, 0.0):
            self.announce(self.take(ref))

    def rows(self, ref):
        query = (
            "select task_id, status, status = 'pending' and announced_at is not null as is_back from app.tasks"
            " where job_id = %s order by task_id"
        )
        return self.engine.query(query, ref.job_id)

    def check(self):
        for ref in self.refs:
            (stage,) = self.engine.query("select * from app.stages where job_id = %s", ref.job_id)
            rows = self.rows(ref)
            assert len(rows) == TASKS
            beyond = [row for row in rows if row["task_id"] > stage["window_after"]]
            if ref.job_id in self.cancelled or ref in self.adjusted:
                continue
            without_message = {"pending", "processing", "completed"} if self.goes_on else {"pending"}
            assert {row["status"] for row in beyond} <= without_message
            if self.most is not None:
                announced = sum(row["status"] in OPEN and not row["is_back"] for row in rows)
                assert announced - len(beyond) <= self.most

    def explain_tells_the_truth(self):
        """A job whose tasks wait in line says so, and how many; one whose tasks do not says nothing of the line."""
        for ref in self.refs:
            facts = InsightQueries(self.engine.pool).get_job_facts(ref.job_id)
            (line,) = self.engine.query(
                "select count(*) as n from app.tasks t join app.stages s on s.job_id = t.job_id where t.job_id = %s"
                " and (t.status = 'pending' and (t.task_id > s.window_after or t.announced_at is not null)"
                "   or t.status = 'pending_retry' and t.due_at <= now() and t.announced_at is null"
                "   and t.task_id <= s.window_after and t.parked_at is null)",
                ref.job_id,
            )
            found = {finding.code: finding.message for finding in explain(facts)}
            told = found.get("waits_for_turn") or found.get("waits_for_limit")
            if line["n"] and facts.paused_at is None:
                assert f" {line['n']} task" in told
            elif facts.paused_at is None:
                assert told is None

    def finish(self):
        """Work goes on without faults: in turn, so that each job has its share until all have ended."""
        self.mark()
        for ref in self.refs:
            self.resume(ref)
        for _ in range(JOBS * TASKS * 4):
            if not self.queue:
                self.take_back()
                self.sweep()
            if not self.queue:
                # What may be about to be announced is given a moment, and found by the next.
                self.sweep()
            if not self.queue:
                break
            self.deliver(self.queue.pop(0))


STORIES = {
    "story": st.lists(events, max_size=30),
    "first": st.integers(1, 12),
    "per_message": st.sampled_from([None, 1, 3]),
    "most": st.sampled_from([None, None, 1, 4]),
}


@examples(10)
@given(**STORIES)
# The process that runs a task without a message dies after the window went on over it.
@example(story=[("die_going_on", 1), ("sweep", 0)], first=1, per_message=None, most=None)
@example(story=[("die_going_on", 1), ("take", 0), ("take_back", 0)], first=1, per_message=1, most=None)
# What was released is taken again, by a process that dies; a mark of the first messages comes late.
@example(story=[("split", 1), ("die_split", 1), ("die_taken", 0), ("sweep", 0)], first=6, per_message=3, most=None)
@example(story=[("split", 0), ("duplicate", 0), ("split", 0), ("take_back", 0)], first=6, per_message=3, most=4)
# What is due for another attempt is taken by a process that dies.
@example(story=[("retry", 0), ("retry", 0), ("die_taken", 0), ("sweep", 0)], first=6, per_message=3, most=None)
@example(story=[("retry", 0), ("split", 1), ("retry", 0), ("take_and_lose", 0)], first=6, per_message=3, most=4)
@example(story=[("die_going_on", 6), ("die_going_on", 6), ("take_back", 0)], first=12, per_message=1, most=None)
# A retry is written before the message of its first attempt is marked.
@example(
    story=[("hold_marks", 0), ("take", 0), ("deliver", 0), ("retry", 0), ("mark", 0)], first=1, per_message=3, most=None
)
# A message is lost before it is marked.
@example(story=[("hold_marks", 0), *[("deliver", 0)] * 3, ("lose", 0)], first=1, per_message=None, most=None)
# The message of a retry is lost.
@example(story=[("retry", 0), *[("deliver", 0)] * 2, ("lose", 0)], first=1, per_message=1, most=1)
# Retries wait in line when max_parallel is set.
@example(story=[("retry", 0)] * 3 + [("adjust", (0, 2)), ("adjust", (1, 1))], first=6, per_message=3, most=None)
@example(story=[("return", 1), ("duplicate", 0), ("die_returned", 1), ("return", 1)], first=6, per_message=3, most=4)
@example(story=[("pause", 0), ("return", 1), ("deliver", 0), ("resume", 0)], first=6, per_message=3, most=None)
def test_every_task_is_run_once_whatever_happens(engine, story, first, per_message, most):
    driver = Driver(engine, first, per_message and min(per_message, most or per_message), most)
    for ref in driver.refs:
        driver.announce(engine.tasks.take_next_tasks(ref))
    driver.check()
    for event, number in story:
        driver.send(event, number)
    driver.explain_tells_the_truth()
    driver.finish()
    for ref in driver.refs:
        if ref.job_id not in driver.cancelled:
            assert {row["status"] for row in driver.rows(ref)} == {"completed"}
            assert engine.job_status(ref.job_id) == "finalizing"
        elif engine.job_status(ref.job_id) != "finalizing":
            assert {row["status"] for row in driver.rows(ref)} <= {"completed", "cancelled"}
            assert engine.job_status(ref.job_id) == "cancelled"
        assert {row["task_id"] for row in driver.rows(ref) if row["status"] == "completed"} == {
            task_id for ran, task_id in driver.ran if ran == ref
        }
    assert set(driver.ran.values()) <= {1}
    assert verify(engine.pool) == []


test_every_task_is_run_once_in_many_stories = many_more(test_every_task_is_run_once_whatever_happens, 150, **STORIES)


BACKLOGS = {"first": st.integers(1, 16), "per_message": st.integers(1, 4), "large": st.integers(100, 400)}


@examples(4)
@given(**BACKLOGS)
def test_no_job_starves_whatever_the_backlog_of_another(engine, first, per_message, large):
    """A new stage's first message comes after no more than what the window of the other has."""
    driver = Driver(engine, first, per_message, None)
    giant = engine.submit(stages=1, tasks_per_message=per_message)
    engine.plan(giant, 1, large, first_window=first)
    other = StageRef(giant, 1, 1)
    driver.refs = [other]
    driver.announce(engine.tasks.take_next_tasks(other))
    for _ in range(10):
        driver.deliver(driver.queue.pop(0) if driver.queue else None)
    window = len(driver.queue)
    newcomer = engine.submit(stages=1, tasks_per_message=per_message)
    engine.plan(newcomer, 1, 2)
    driver.refs.append(StageRef(newcomer, 1, 1))
    driver.announce(driver.janitor.find_unannounced_tasks(1000, 0.0, 0.0))
    delivered = 0
    while engine.job_status(newcomer) == "processing":
        driver.deliver(driver.queue.pop(0))
        delivered += 1
    assert delivered <= window + 2
    assert window <= 4 * max(first, 16)


test_no_job_starves_in_many_stories = many_more(test_no_job_starves_whatever_the_backlog_of_another, 20, **BACKLOGS)


CROWDS = {"first": st.integers(1, 16), "per_message": st.integers(1, 4), "goes_on": st.integers(0, 3)}


@examples(4)
@given(**CROWDS)
def test_a_large_job_goes_on_and_needs_no_sweep_however_many_small_ones_come(engine, first, per_message, goes_on):
    """A small one with each of its messages, whose tasks may go on while the large job's do not."""
    driver = Driver(engine, first, per_message, None)
    driver.goes_on = True
    giant = engine.submit(stages=1, tasks_per_message=per_message)
    engine.plan(giant, 1, 30, first_window=first)
    driver.refs = [StageRef(giant, 1, 1)]
    driver.announce(engine.tasks.take_next_tasks(driver.refs[0]))
    delivered = 0
    while engine.job_status(giant) == "processing":
        newcomer = engine.submit(stages=1, tasks_per_message=1)
        engine.plan(newcomer, 1, 4, first_window=1)
        driver.refs.append(StageRef(newcomer, 1, 1))
        driver.announce(engine.tasks.take_next_tasks(driver.refs[-1]))
        ref, ids = driver.queue.pop(0)
        while ref != driver.refs[0]:
            driver.go_on((ref, ids), goes_on, dies=False)
            ref, ids = driver.queue.pop(0)
        driver.deliver((ref, ids))
        delivered += 1
    assert delivered <= 30


test_a_large_job_needs_no_sweep_in_many_stories = many_more(
    test_a_large_job_goes_on_and_needs_no_sweep_however_many_small_ones_come, 20, **CROWDS
)
