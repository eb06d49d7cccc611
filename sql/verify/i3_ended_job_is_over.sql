-- I3: an ended job has an end time and an open one has none; a failed one says why; a completed one has no failed stage.
select j.job_id, j.run, j.status, j.finished_at
from {schema}.jobs j
where (j.status in ({ended_jobs})) is distinct from
    (j.finished_at is not null)
  or (j.status = 'failed' and j.error is null)
  or (j.status in ({completed_jobs}) and exists (
    select 1 from {schema}.stages s
    where s.job_id = j.job_id and s.run = j.run and s.status not in ({completed_stages})
  ))
