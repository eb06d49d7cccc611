-- Gives claimed tasks back before their lease runs out; they are to be announced again.
-- p_started false: their handler never began, so nothing is counted. True: an interruption (a host that drains).
-- Fence: the lease. Locks: task rows by id, then the stage, then the job row.
create or replace function {schema}.release_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_started boolean
) returns text[]
language plpgsql set enable_seqscan = off as $$
declare
  v_open boolean;
  v_ids text[];
begin
  select j.status = 'processing' and j.run = p_run and s.status = 'processing' into v_open
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  select coalesce(array_agg(h.task_id), array[]::text[]) into v_ids from (
    select t.task_id from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = any (p_task_ids) and t.stage = p_stage
      and t.status is not distinct from 'processing' and t.lease_id = p_lease_id
    order by t.task_id for update
  ) h;
  update {schema}.tasks t
  set status = case when v_open then 'pending' else 'cancelled' end,
      finished_at = case when v_open then null else {schema}.clock() end,
      is_watched = t.is_watched and v_open,
      attempt = t.attempt - case when p_started then 0 else 1 end,
      interruptions = t.interruptions + case when p_started then 1 else 0 end,
      lease_id = null, lease_expires_at = null, announced_at = null
  where t.job_id = p_job_id and t.run = p_run and t.task_id = any (v_ids);
  if cardinality(v_ids) = 0 then
    return v_ids;
  elsif v_open then
    if p_started then
      perform {schema}.record_event(p_job_id, p_run, p_stage, null, 'tasks_handed_back',
        jsonb_build_object('count', cardinality(v_ids)));
    end if;
    return v_ids;
  end if;
  perform {schema}.check_stage(p_job_id, p_run, p_stage, false, null);
  return array[]::text[];
end $$;
