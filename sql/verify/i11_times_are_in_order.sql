-- I11: one clock decides, so nothing of a job happens before it was submitted, and nothing ends before it begins. If such
-- rows are of one moment, the database's clock was set back then, as by a failover to a server whose clock was behind:
-- times are wrong by that, and nothing else.
select e.job_id, e.run, 'event ' || e.event_id::text as found, e.at, j.created_at as not_before
from {schema}.job_events e
join {schema}.jobs j on j.job_id = e.job_id
where e.at < j.created_at
union all
select t.job_id, t.run, 'task ' || t.task_id, t.finished_at, t.started_at
from {schema}.tasks t
where t.finished_at < t.started_at
union all
select s.job_id, s.run, 'stage ' || s.stage::text, s.finished_at, coalesce(s.planned_at, s.created_at)
from {schema}.stages s
where s.finished_at < coalesce(s.planned_at, s.created_at)
union all
select j.job_id, j.run, 'job', j.finished_at, j.created_at
from {schema}.jobs j
where j.finished_at < j.created_at
