-- I3: a rerun begins where the run before has ended: no stage of it is open, and no task but what a process still has in
-- hand.
select s.job_id, s.run, j.run as job_run, s.stage, null as task_id, s.status as found
from {schema}.stages s
join {schema}.jobs j on j.job_id = s.job_id
where s.run < j.run and s.status in ({open_stages})
union all
select t.job_id, t.run, j.run, t.stage, t.task_id, t.status
from {schema}.tasks t
join {schema}.jobs j on j.job_id = t.job_id
where t.status in ({waiting_tasks}) and t.run < j.run
