-- I1: a job ends once in each run, and its timeline says so.
select j.job_id, j.run, j.status, count(e.event_id) as ends
from {schema}.jobs j
left join {schema}.job_events e on e.job_id = j.job_id and e.run = j.run
  and e.event in ('job_completed', 'job_completed_with_errors', 'job_failed', 'job_cancelled')
group by j.job_id, j.run, j.status
having count(e.event_id) <> case
  when j.status in ({ended_jobs}) then 1 else 0 end
