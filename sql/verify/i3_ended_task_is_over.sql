-- I3: an ended task has an end time and an open one has none; a completed one has a result, a failed one an error.
select t.job_id, t.run, t.task_id, t.status, t.finished_at
from {schema}.tasks t
where (t.status in ({ended_tasks})) is distinct from (t.finished_at is not null)
  or (t.status = 'completed' and t.result is null)
  or (t.status = 'failed' and t.error is null)
