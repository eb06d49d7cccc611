-- I6: a stage's failed_count is the number of its failed tasks, and its end says whether there were any.
select s.job_id, s.run, s.stage, s.status, s.failed_count, count(t.task_id) as failed_tasks
from {schema}.stages s
left join {schema}.tasks t on t.job_id = s.job_id and t.run = s.run and t.stage = s.stage and t.status = 'failed'
group by s.job_id, s.run, s.stage, s.status, s.failed_count
having s.failed_count <> count(t.task_id)
  or (s.status = 'completed' and s.failed_count > 0) or (s.status = 'completed_with_errors' and s.failed_count = 0)
