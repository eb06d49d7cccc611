-- The completion path as it would be without the watch: whoever completes tasks takes the stage's lock exclusively and
-- looks for an open task. In a measurement the stage stays open, so what its last task does is not written here.

create or replace function {schema}.settle_task(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_id text, p_result jsonb
) returns boolean
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
begin
  update {schema}.tasks t
  set status = 'completed', lease_id = null, lease_expires_at = null, finished_at = {schema}.clock(), result = p_result,
      error = null
  where t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_id and t.stage = p_stage
    and t.status is not distinct from 'processing' and t.lease_id = p_lease_id;
  if not found then
    raise exception 'expected a task to complete, found none: %', p_task_id;
  end if;
  perform {schema}.lock_stage(p_job_id, p_run, p_stage);
  perform 1 from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and {stage_is_open};
  if not found or not {schema}.has_open_task(p_job_id, p_run, p_stage) then
    raise exception 'expected a stage that goes on';
  end if;
  return true;
end $$;

create or replace function {schema}.settle_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_payloads jsonb[], p_status text
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql set enable_seqscan = off as $$
begin
  select array_agg(h.task_id) into updated_ids from (
    select t.task_id from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = any (p_task_ids) and t.stage = p_stage
      and t.status is not distinct from 'processing' and t.lease_id = p_lease_id
    order by t.task_id for update
  ) h;
  if cardinality(updated_ids) is distinct from cardinality(p_task_ids) then
    raise exception 'expected % tasks to complete, found %', cardinality(p_task_ids), cardinality(updated_ids);
  end if;
  perform {schema}.lock_stage(p_job_id, p_run, p_stage);
  select s.status, j.status into stage_status, job_status
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  perform {schema}.end_tasks(p_job_id, p_run, updated_ids, p_status, p_task_ids, p_payloads, {schema}.clock());
  is_last_task_in_stage := not {schema}.has_open_task(p_job_id, p_run, p_stage);
  return next;
end $$;

create or replace function {schema}.has_open_task(p_job_id text, p_run integer, p_stage integer) returns boolean
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
begin
  return exists (
    select 1 from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and t.status in ({open_tasks})
  );
end $$;
