-- I6: a job whose stages had failures is not plainly completed, and one without did not end with errors.
select j.job_id, j.run, j.status, coalesce(sum(s.failed_count), 0) as failed_tasks
from {schema}.jobs j
left join {schema}.stages s on s.job_id = j.job_id and s.run = j.run
where j.status in ({completed_jobs})
group by j.job_id, j.run, j.status
having (j.status = 'completed') is distinct from (coalesce(sum(s.failed_count), 0) = 0)
