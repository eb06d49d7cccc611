-- Extends leases of one job's tasks. Outcome an id: renewed; stop (the job or stage ended or is being cancelled,
-- the lease is kept so that the task can end in order); lost (another attempt has it, or it ended).
-- Fence: the lease. Locks: task rows by id.
create or replace function {schema}.renew_leases(
  p_job_id text, p_run integer, p_task_ids text[], p_lease_ids uuid[], p_progress jsonb[]
) returns table (task_id text, outcome text)
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  return query
  with held as (
    select * from unnest(p_task_ids, p_lease_ids, p_progress) as h(task_id, lease_id, progress)
  ), owned as (
    select t.task_id, t.stage, h.progress from {schema}.tasks t
    join held h on h.task_id = t.task_id and h.lease_id = t.lease_id
    where t.job_id = p_job_id and t.run = p_run and t.status = 'processing'
    order by t.task_id for update of t
  ), renewed as (
    update {schema}.tasks t
    set lease_expires_at = v_now + (s.settings ->> 'lease_seconds')::double precision * interval '1 second',
        progress = coalesce(o.progress, t.progress)
    from owned o
    join {schema}.stages s on s.job_id = p_job_id and s.run = p_run and s.stage = o.stage
    join {schema}.jobs j on j.job_id = p_job_id
    where t.job_id = p_job_id and t.run = p_run and t.task_id = o.task_id
    returning t.task_id,
      case when j.status = 'processing' and j.run = p_run and s.status = 'processing'
        then 'renewed' else 'stop' end as outcome
  )
  select h.task_id, coalesce(r.outcome, 'lost') from held h left join renewed r on r.task_id = h.task_id;
end $$;
