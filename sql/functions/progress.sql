-- Progress: how far a job is.

-- How far a job is: one row per stage of its current run, with the number of its tasks in each state. Reads only.
create or replace function {schema}.check_job_completion(p_job_id text)
returns table (
  job_status text, run integer, stage integer, stage_status text, expected_count integer,
  completed integer, failed integer, cancelled integer, open integer
)
language sql stable as $$
  select j.status, s.run, s.stage, s.status, s.expected_count,
    count(*) filter (where t.status = 'completed')::integer,
    count(*) filter (where t.status = 'failed')::integer,
    count(*) filter (where t.status = 'cancelled')::integer,
    count(*) filter (where t.status in ({open_tasks}))::integer
  from {schema}.jobs j
  join {schema}.stages s on s.job_id = j.job_id and s.run = j.run
  left join {schema}.tasks t on t.job_id = s.job_id and t.run = s.run and t.stage = s.stage
  where j.job_id = p_job_id
  group by j.status, s.run, s.stage, s.status, s.expected_count
  order by s.stage
$$;
