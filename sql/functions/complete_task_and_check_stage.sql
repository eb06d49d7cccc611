-- Ends tasks of one stage, all held under one lease, as completed or failed, and looks whether the stage is over.
-- Fence: the lease; what is no longer held is left alone and missing from updated_ids.
-- A task of a stage or job that has ended meanwhile becomes cancelled: late results are kept out.
-- job_status says where the job goes on; it is null while the job is paused.
-- Locks: task rows by id, then the stage, then the job row.
-- Raises CM001 when the stage was closed between its check and its lock: call again, it then finds it closed.
create or replace function {schema}.settle_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_payloads jsonb[], p_status text
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_open boolean;
  v_status text;
begin
  select j.status = 'processing' and j.run = p_run and s.status = 'processing' into v_open
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  v_status := case when v_open then p_status else 'cancelled' end;

  select coalesce(array_agg(h.task_id), array[]::text[]) into updated_ids from (
    select t.task_id from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = any (p_task_ids) and t.stage = p_stage
      and t.status = 'processing' and t.lease_id = p_lease_id
    order by t.task_id for update
  ) h;
  update {schema}.tasks t
  set status = v_status, lease_id = null, lease_expires_at = null, finished_at = v_now,
      result = case v_status when 'completed' then given.payload else t.result end,
      error = case v_status when 'failed' then given.payload when 'completed' then null else t.error end
  from unnest(p_task_ids, p_payloads) as given(task_id, payload)
  where t.job_id = p_job_id and t.run = p_run and t.task_id = any (updated_ids) and t.task_id = given.task_id;

  is_last_task_in_stage := false;
  if cardinality(updated_ids) > 0 then
    is_last_task_in_stage := {schema}.check_stage(p_job_id, p_run, p_stage, v_open,
      case v_status when 'failed' then updated_ids end);
  end if;
  select s.status, case when j.paused_at is null then j.status end into stage_status, job_status
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  return next;
end $$;

create or replace function {schema}.complete_task_and_check_stage(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[]
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language sql volatile as $$
  select * from {schema}.settle_tasks(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_results, 'completed')
$$;

create or replace function {schema}.fail_task_and_check_stage(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_errors jsonb[]
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language sql volatile as $$
  select * from {schema}.settle_tasks(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_errors, 'failed')
$$;
