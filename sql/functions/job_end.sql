-- The end of a job: with its own summary, or without one as failed or cancelled.

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

-- Fails the job from outside its tasks: a planner that raised, a finalizer that raised.
create or replace function {schema}.fail_job(p_job_id text, p_run integer, p_error jsonb) returns boolean
language plpgsql as $$
begin
  perform {schema}.lock_stage(p_job_id, p_run, j.stage) from {schema}.jobs j where j.job_id = p_job_id;
  return {schema}.end_job(p_job_id, p_run, 'failed', p_error);
end $$;

-- Ends a job that did not complete: failed or cancelled. Its open stage ends with it and its tasks are cancelled.
-- Task rows that another transaction holds are skipped, never awaited (that would turn the lock order round): they
-- end as cancelled when they settle, are claimed, or lose their lease.
-- Locks: the stage's, held by the caller; then the job row.
create or replace function {schema}.end_job(p_job_id text, p_run integer, p_status text, p_error jsonb) returns boolean
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_stage integer;
begin
  update {schema}.jobs j
  set status = p_status, error = coalesce(p_error, j.error), finished_at = v_now, updated_at = v_now,
      paused_at = null
  where j.job_id = p_job_id and j.run = p_run
    and (j.status in ({active_jobs}) or (j.status = 'cancelling' and p_status = 'cancelled'))
  returning j.stage into v_stage;
  if not found then
    return false;
  end if;
  update {schema}.stages s set status = p_status, finished_at = v_now
  where s.job_id = p_job_id and s.run = p_run and s.stage = v_stage and s.status in ({open_stages});
  perform {schema}.cancel_open_tasks(p_job_id, p_run, v_stage, true);
  perform {schema}.record_event(p_job_id, p_run, v_stage, null, 'job_' || p_status, p_error);
  return true;
end $$;
