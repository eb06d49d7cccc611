-- I3: nothing of an ended job waits: no open stage, and no open task but what a process still has in hand (its results
-- are kept out when it ends).
select j.job_id, j.run, j.status, s.stage, null as task_id, s.status as found
from {schema}.jobs j
join {schema}.stages s on s.job_id = j.job_id and s.run = j.run
where j.status in ({ended_jobs}) and s.status in ({open_stages})
union all
select j.job_id, j.run, j.status, t.stage, t.task_id, t.status
from {schema}.tasks t
join {schema}.jobs j on j.job_id = t.job_id and j.run = t.run
where t.status in ({open_tasks})
  and j.status in ({ended_jobs})
  and (t.status <> 'processing' or j.status in ({completed_jobs}))
