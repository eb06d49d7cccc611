-- Takes tasks of one stage back whose lease has run out: an interruption, not a failure. Beyond the stage's
-- max_interruptions the task fails with that reason. In a stage or job that has ended it becomes cancelled.
-- Rows in other hands this moment are skipped. Locks: task rows by id, then the stage, then the job row.
create or replace function {schema}.take_back_tasks(p_job_id text, p_run integer, p_stage integer)
returns table (taken_back integer, given_up integer, is_last_task_in_stage boolean)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_stage record;
  v_expired text[];
  v_failed text[];
  v_total integer;
begin
  select j.status = 'processing' and j.run = p_run and s.status = 'processing' as is_open,
         (s.settings ->> 'max_interruptions')::integer as allowed
  into v_stage
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;

  select array_agg(e.task_id) into v_expired from (
    select t.task_id from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and t.status = 'processing' and t.lease_expires_at <= v_now
    order by t.task_id for update skip locked
  ) e;

  with ended as (
    update {schema}.tasks t
    set interruptions = t.interruptions + 1,
        is_watched = t.is_watched and v_stage.is_open and t.interruptions + 1 <= v_stage.allowed, lease_id = null, lease_expires_at = null, announced_at = null,
        status = case when not v_stage.is_open then 'cancelled'
                      when t.interruptions + 1 > v_stage.allowed then 'failed' else 'pending' end,
        finished_at = case when v_stage.is_open and t.interruptions + 1 <= v_stage.allowed then null else v_now end,
        error = case when v_stage.is_open and t.interruptions + 1 > v_stage.allowed
          then jsonb_build_object('type', 'InterruptedTooOften', 'retryable', false, 'attempt', t.attempt,
            'message', format('its process ended without a verdict %s times (last: %s)',
              t.interruptions + 1, t.lease_owner))
          else t.error end
    where t.job_id = p_job_id and t.run = p_run and t.task_id = any (v_expired)
    returning t.task_id, t.status, t.interruptions
  ), noted as (
    select {schema}.record_event(p_job_id, p_run, p_stage, e.task_id, 'task_interrupted',
      jsonb_build_object('interruptions', e.interruptions)), e.task_id, e.status from ended e
  )
  select array_agg(n.task_id) filter (where n.status = 'failed'), count(*) into v_failed, v_total from noted n;

  given_up := coalesce(cardinality(v_failed), 0);
  taken_back := v_total - given_up;
  is_last_task_in_stage := false;
  if v_failed is not null or (v_total > 0 and not v_stage.is_open) then
    is_last_task_in_stage := {schema}.check_stage(p_job_id, p_run, p_stage, v_stage.is_open, v_failed);
  end if;
  return next;
end $$;
