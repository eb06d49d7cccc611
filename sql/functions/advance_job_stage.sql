-- The stage is over: writes its end and moves the job on, in the caller's transaction. Returns the job's new status.
-- Fence: the stage still runs. Locks: the stage's lock is held by the caller; then the job row.
create or replace function {schema}.close_stage(p_job_id text, p_run integer, p_stage integer) returns text
language plpgsql as $$
declare
  v_status text;
begin
  update {schema}.stages s
  set status = case when s.failed_count > 0 then 'completed_with_errors' else 'completed' end,
      finished_at = {schema}.clock()
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.status = 'processing'
  returning s.status into v_status;
  if not found then
    return null;
  end if;
  perform {schema}.record_event(p_job_id, p_run, p_stage, null, 'stage_' || v_status, null);
  return {schema}.advance_job_stage(p_job_id, p_run, p_stage);
end $$;

-- Writes the next stage's row, or makes the job finalizing after the last one. Can be called again at any time:
-- it acts only while the job still stands at a stage that has ended. Returns the job's new status, or null.
create or replace function {schema}.advance_job_stage(p_job_id text, p_run integer, p_stage integer) returns text
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_job record;
begin
  update {schema}.jobs j
  set status = case when j.stage < j.total_stages then 'queued' else 'finalizing' end,
      stage = least(j.stage + 1, j.total_stages), announced_at = null, attempt = 0, due_at = null,
      updated_at = v_now
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = 'processing'
    and exists (
      select 1 from {schema}.stages s
      where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage
        and s.status in ('completed', 'completed_with_errors')
    )
  returning j.status, j.stage, j.definition into v_job;
  if not found then
    return null;
  end if;
  if v_job.status = 'queued' then
    insert into {schema}.stages (job_id, run, stage, settings, created_at)
    values (p_job_id, p_run, v_job.stage, v_job.definition -> 'stages' -> (v_job.stage - 1), v_now);
  end if;
  return v_job.status;
end $$;
