-- I4: a task that is announced when its turn comes is of a stage that has a window, so that its turn does come.
select t.job_id, t.run, t.task_id, t.status, s.window_after
from {schema}.tasks t
join {schema}.stages s on s.job_id = t.job_id and s.run = t.run and s.stage = t.stage
where t.is_windowed and t.status in ({open_tasks}) and s.window_after is null
