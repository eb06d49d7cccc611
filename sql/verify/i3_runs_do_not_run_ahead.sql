-- I3: nothing is of a later run than its job.
select x.job_id, x.run, j.run as job_run, x.kind
from (
  select job_id, run, 'stage' as kind from {schema}.stages
  union select job_id, run, 'task' from {schema}.tasks
  union select job_id, run, 'event' from {schema}.job_events
) x
join {schema}.jobs j on j.job_id = x.job_id
where x.run > j.run
