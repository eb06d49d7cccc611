-- I7: a planned stage has exactly the tasks that were sealed with it, a stage that is not planned has none; unless
-- retention has begun to delete the job.
select s.job_id, s.run, s.stage, s.status, s.expected_count, count(t.task_id) as tasks
from {schema}.stages s
left join {schema}.tasks t on t.job_id = s.job_id and t.run = s.run and t.stage = s.stage
where not exists (
  select 1 from {schema}.job_events e where e.job_id = s.job_id and e.event = 'pruning_begun'
)
group by s.job_id, s.run, s.stage, s.status, s.expected_count, s.planned_at
having coalesce(s.expected_count, 0) <> count(t.task_id)
  or (s.expected_count is null) is distinct from (s.planned_at is null)
  or (s.status in ('processing', 'completed', 'completed_with_errors') and s.expected_count is null)
