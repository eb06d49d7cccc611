-- The job's end: its own summary is stored. Fence: the job is finalizing in this run; a second caller changes nothing.
create or replace function {schema}.finalize_job(p_job_id text, p_run integer, p_result jsonb) returns text
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_now timestamptz := {schema}.clock();
  v_status text;
begin
  update {schema}.jobs j
  set status = case when exists (
        select 1 from {schema}.stages s where s.job_id = p_job_id and s.run = p_run and s.failed_count > 0
      ) then 'completed_with_errors' else 'completed' end,
      result = p_result, finished_at = v_now, updated_at = v_now, paused_at = null
  where j.job_id = p_job_id and j.run = p_run and j.status = 'finalizing'
  returning j.status into v_status;
  if found then
    perform {schema}.record_event(p_job_id, p_run, null, null, 'job_' || v_status, null);
  end if;
  return v_status;
end $$;

-- How far a job is: one row a stage of its current run. Reads only.
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
    count(*) filter (where t.status in ('pending', 'queued', 'processing', 'pending_retry'))::integer
  from {schema}.jobs j
  join {schema}.stages s on s.job_id = j.job_id and s.run = j.run
  left join {schema}.tasks t on t.job_id = s.job_id and t.run = s.run and t.stage = s.stage
  where j.job_id = p_job_id
  group by j.status, s.run, s.stage, s.status, s.expected_count
  order by s.stage
$$;
