-- I7: a stage ends with its last task: a completed one has no open task, and one that failed or was cancelled only what a
-- process still has in hand.
select s.job_id, s.run, s.stage, s.status as stage_status, t.task_id, t.status
from {schema}.tasks t
join {schema}.stages s on s.job_id = t.job_id and s.run = t.run and s.stage = t.stage
where t.status in ({open_tasks})
  and s.status not in ({open_stages})
  and (t.status <> 'processing' or s.status in ({completed_stages}))
