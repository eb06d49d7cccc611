-- I4: what waits for a time has one, so that the sweep finds it. Age alone is no violation: `coremachine explain` tells.
select t.job_id, t.run, t.task_id, t.status, t.due_at
from {schema}.tasks t
where t.status = 'pending_retry' and t.due_at is null
