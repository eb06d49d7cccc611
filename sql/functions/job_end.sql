-- The end of a job: completed with its own summary, or failed or cancelled from outside its tasks.

-- Ends a job whose stages have all completed, with its summary. Returns its final status, or null.
-- Fence: the job is finalizing in this run, so a second caller changes nothing. Locks: the job row.
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
    perform {schema}.note_job_event(p_job_id, p_run, 'job.' || v_status);
  elsif exists (
    select from {schema}.jobs j where j.job_id = p_job_id and j.run = p_run and j.status = 'finalizing'
  ) then
    perform {schema}.report_left_out('jobs');
  end if;
  return v_status;
end $$;

-- Fails a job from outside its tasks, wherever it is. False: it had ended. Locks: the stage, then the job row.
-- Raises CM001 when the job advanced to another stage between the look at it and the lock: call again.
create or replace function {schema}.fail_job(p_job_id text, p_run integer, p_error jsonb) returns boolean
language plpgsql as $$
declare
  v_stage integer := (select j.stage from {schema}.jobs j where j.job_id = p_job_id);
begin
  perform {schema}.lock_stage(p_job_id, p_run, v_stage);
  if exists (select from {schema}.jobs j where j.job_id = p_job_id and j.stage <> v_stage) then
    raise exception 'job % advanced meanwhile', p_job_id using errcode = 'CM001';
  end if;
  return {schema}.end_job(p_job_id, p_run, 'failed', p_error);
end $$;

-- Fails a job since an attempt at its step has failed: its planner or its finalizer raised. False: somebody else has taken
-- that step meanwhile, or has counted this attempt. p_attempt: the failed attempts before this one.
-- Fence: the job waits for that step of that run, as it did when the attempt began. Locks: the stage, then the job row.
create or replace function {schema}.fail_job_step(
  p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_error jsonb
) returns boolean
language plpgsql as $$
begin
  perform {schema}.lock_stage(p_job_id, p_run, p_stage);
  perform from {schema}.jobs j
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = p_status and j.attempt = p_attempt
    and j.status in ({waiting_jobs})
  for update;
  return found and {schema}.end_job(p_job_id, p_run, 'failed', p_error);
end $$;

-- Ends a job as failed or cancelled, its open stage with it, and cancels its tasks.
-- Task rows that another transaction holds are skipped and never waited for, which would reverse the order of locks:
-- they end as cancelled when they settle, are claimed, or lose their lease. Returns false when the job had ended.
-- Fence: the job has not ended in this run. Locks: the stage's lock is held by the caller; then the job row.
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
    if exists (
      select from {schema}.jobs j
      where j.job_id = p_job_id and j.run = p_run
        and (j.status in ({active_jobs}) or (j.status = 'cancelling' and p_status = 'cancelled'))
    ) then
      perform {schema}.report_left_out('jobs');
    end if;
    return false;
  end if;
  update {schema}.stages s set status = p_status, finished_at = v_now
  where s.job_id = p_job_id and s.run = p_run and s.stage = v_stage and s.status in ({open_stages});
  if not found and exists (
    select from {schema}.stages s
    where s.job_id = p_job_id and s.run = p_run and s.stage = v_stage and s.status in ({open_stages})
  ) then
    perform {schema}.report_left_out('stages');
  end if;
  perform {schema}.cancel_open_tasks(p_job_id, p_run, v_stage, true);
  perform {schema}.drop_kept_places(p_job_id, p_run);
  perform {schema}.record_event(p_job_id, p_run, v_stage, null, 'job_' || p_status, p_error);
  perform {schema}.note_job_event(p_job_id, p_run, 'job.' || p_status);
  return true;
end $$;
