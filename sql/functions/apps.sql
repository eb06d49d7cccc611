-- The processes of all apps, as they register themselves. Nothing decides by these rows.

-- Writes that a process is here, and what it can do. One that said that it ends does not come back.
-- Fence: ended_at. Locks: the process's own row, which nobody else writes while it lives.
create or replace function {schema}.record_app_instance(
  p_instance text, p_app_name text, p_mode text, p_version text, p_release text, p_queues text[], p_task_types text[],
  p_job_types text[], p_slots integer
) returns void
language sql as $$
  insert into {schema}.app_instances as a (
    instance, app_name, mode, version, release, queues, task_types, job_types, slots, started_at, seen_at
  ) values (
    p_instance, p_app_name, p_mode, p_version, p_release, p_queues, p_task_types, p_job_types, p_slots,
    {schema}.clock(), {schema}.clock()
  )
  on conflict (instance) do update set seen_at = excluded.seen_at where a.ended_at is null
$$;

-- Writes that a process ends, in order.
-- Fence: ended_at. Locks: the process's own row.
create or replace function {schema}.end_app_instance(p_instance text) returns void
language sql as $$
  update {schema}.app_instances a set ended_at = {schema}.clock() where a.instance = p_instance and a.ended_at is null
$$;

-- Deletes up to p_limit rows of processes that were last heard of longer ago than p_older_than_seconds.
-- Returns how many it deleted. Locks: those rows; one that another transaction holds is skipped.
create or replace function {schema}.prune_app_instances(p_older_than_seconds double precision, p_limit integer)
returns integer
language plpgsql as $$
declare
  v_count integer;
begin
  delete from {schema}.app_instances a
  where a.ctid = any (array(
    select o.ctid from {schema}.app_instances o
    where o.seen_at < {schema}.clock() - p_older_than_seconds * interval '1 second'
    order by o.seen_at limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;
