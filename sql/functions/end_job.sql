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
    and (j.status in ('queued', 'processing', 'finalizing') or (j.status = 'cancelling' and p_status = 'cancelled'))
  returning j.stage into v_stage;
  if not found then
    return false;
  end if;
  update {schema}.stages s set status = p_status, finished_at = v_now
  where s.job_id = p_job_id and s.run = p_run and s.stage = v_stage and s.status in ('queued', 'processing');
  perform {schema}.cancel_open_tasks(p_job_id, p_run, v_stage, true);
  perform {schema}.record_event(p_job_id, p_run, v_stage, null, 'job_' || p_status, p_error);
  return true;
end $$;

-- Cancels what has not ended; running tasks too if asked. Skips rows that are in other hands this moment.
create or replace function {schema}.cancel_open_tasks(
  p_job_id text, p_run integer, p_stage integer, p_with_running boolean
) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_ids text[];
  v_count integer;
begin
  select array_agg(o.task_id) into v_ids from (
    select t.task_id from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and (t.status in ('pending', 'queued', 'pending_retry') or (p_with_running and t.status = 'processing'))
    order by t.task_id for update skip locked
  ) o;
  update {schema}.tasks t
  set status = 'cancelled', is_watched = false, lease_id = null, lease_expires_at = null, due_at = null,
      parked_at = null, finished_at = {schema}.clock()
  where t.job_id = p_job_id and t.run = p_run and t.task_id = any (v_ids);
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- Fails the job from outside its tasks: a planner that raised, a finalizer that raised.
create or replace function {schema}.fail_job(p_job_id text, p_run integer, p_error jsonb) returns boolean
language plpgsql as $$
begin
  perform {schema}.lock_stage(p_job_id, p_run, j.stage) from {schema}.jobs j where j.job_id = p_job_id;
  return {schema}.end_job(p_job_id, p_run, 'failed', p_error);
end $$;
