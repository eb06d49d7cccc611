-- Parking: tasks whose message came while their job was paused, and tasks that a rerun wrote, wait here for a message.

-- Finds parked tasks of jobs that are not paused any more: of one job, or of all when p_job_id is null.
-- They are held until held_until, which unpark_tasks is called with: nobody else finds them before.
-- Locks: task rows; those that another transaction holds are skipped.
create or replace function {schema}.find_parked_tasks(p_job_id text, p_limit integer, p_hold_seconds double precision)
returns table (
  job_id text, run integer, stage integer, task_id text, queue text, attempt integer, job_type text,
  correlation_id text, tasks_per_message integer, held_until timestamptz
)
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  return query
  with found as (
    select t.job_id, t.run, t.task_id from {schema}.tasks t
    join {schema}.jobs j on j.job_id = t.job_id and j.run = t.run and j.stage = t.stage
    where t.parked_at <= v_now and t.status in ({waiting_tasks})
      and (p_job_id is null or t.job_id = p_job_id) and j.status = 'processing' and j.paused_at is null
    order by t.parked_at limit p_limit for update of t skip locked
  ), held as (
    update {schema}.tasks t set parked_at = v_now + p_hold_seconds * interval '1 second'
    from found f where t.job_id = f.job_id and t.run = f.run and t.task_id = f.task_id
    returning t.job_id, t.run, t.stage, t.task_id, t.queue, t.attempt, t.parked_at
  )
  select h.job_id, h.run, h.stage, h.task_id, h.queue, h.attempt, j.job_type, j.correlation_id,
    coalesce((s.settings ->> 'tasks_per_message')::integer, 1), h.parked_at
  from held h
  join {schema}.jobs j on j.job_id = h.job_id
  join {schema}.stages s on s.job_id = h.job_id and s.run = h.run and s.stage = h.stage
  order by h.job_id, h.run, h.stage, h.task_id;
end $$;

-- Notes that the messages for parked tasks are confirmed, and returns for how many.
-- Fence: the hold; a task whose message came to a job that was paused once more is parked anew and stays so.
-- Locks: task rows by id.
create or replace function {schema}.unpark_tasks(
  p_job_id text, p_run integer, p_task_ids text[], p_held_until timestamptz
) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_places tid[];
begin
  select coalesce(array_agg(o.place), array[]::tid[]) into v_places from {schema}.ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.parked_at = p_held_until
    for update
  ) o;
  update {schema}.tasks t
  set parked_at = null, announced_at = {schema}.clock(),
      status = case t.status when 'pending' then 'queued' else t.status end,
      due_at = case t.status when 'pending' then null else t.due_at end
  where t.ctid = any (v_places);
  return cardinality(v_places);
end $$;
