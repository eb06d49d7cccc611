-- Planning the job's stage, or finalizing it, failed and is to be tried again after the delay.
-- Fence: the job waits for that step of that run. Returns the number of failed tries so far, null when it does not wait.
create or replace function {schema}.retry_job_step(
  p_job_id text, p_run integer, p_stage integer, p_error jsonb, p_delay_seconds double precision
) returns integer
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_attempt integer;
begin
  update {schema}.jobs j
  set attempt = j.attempt + 1, due_at = v_now + p_delay_seconds * interval '1 second', announced_at = null,
      updated_at = v_now
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status in ('queued', 'finalizing')
  returning j.attempt into v_attempt;
  if found then
    perform {schema}.record_event(p_job_id, p_run, p_stage, null, 'job_step_retry_scheduled',
      p_error || jsonb_build_object('attempt', v_attempt, 'delay_seconds', p_delay_seconds));
  end if;
  return v_attempt;
end $$;
