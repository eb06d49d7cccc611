-- Announcements: which rows have a message, and which need one again. They commit asynchronously: if a crash of the
-- server undoes one, a message comes that does nothing.

-- Notes that the messages for these tasks are confirmed: pending becomes queued.
-- Rows that changed meanwhile keep their status, but one that waits remembers the later message, so that it is not
-- taken for lost while that message waits. One that went back into the line meanwhile stays there. Returns how many rows
-- changed.
-- Locks: task rows by id.
create or replace function {schema}.mark_tasks_announced(p_job_id text, p_run integer, p_task_ids text[])
returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_places tid[];
  v_count integer;
begin
  perform set_config('synchronous_commit', 'off', true);
  select array_agg(o.place) into v_places from {schema}.ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id
      and (t.status in ({waiting_tasks})) is not false and not (t.status = 'pending' and t.announced_at is not null)
    for update
  ) o;
  update {schema}.tasks t
  set status = case t.status when 'pending' then 'queued' else t.status end, announced_at = v_now,
      due_at = case t.status when 'pending' then null else t.due_at end
  where t.ctid = any (v_places);
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- Notes that the messages for tasks that take_next_tasks returned are confirmed.
-- They were pending. One that is not has been begun meanwhile: if its attempt failed, it waits for another one in line,
-- and would not be taken there if this message counted for it. Returns how many rows changed.
-- Locks: task rows by id.
create or replace function {schema}.mark_taken_tasks_announced(p_job_id text, p_run integer, p_task_ids text[])
returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_places tid[];
  v_count integer;
begin
  perform set_config('synchronous_commit', 'off', true);
  select array_agg(o.place) into v_places from {schema}.ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id
      and t.status is not distinct from 'pending' and t.announced_at is null
    for update
  ) o;
  update {schema}.tasks t set status = 'queued', announced_at = v_now, due_at = null
  where t.ctid = any (v_places);
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- Notes that the message for the job's step is confirmed.
-- Fence: the job waits for that step of that run. Locks: the job row.
create or replace function {schema}.mark_job_announced(p_job_id text, p_run integer, p_stage integer) returns boolean
language plpgsql set plan_cache_mode = force_generic_plan as $$
begin
  perform set_config('synchronous_commit', 'off', true);
  update {schema}.jobs j set announced_at = {schema}.clock()
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status in ({waiting_jobs});
  return found;
end $$;

-- Ends the hold of tasks that a find has for the caller, whose messages no queue took.
-- The next sweep finds them.
-- Fence: they are pending. Locks: task rows by id.
create or replace function {schema}.let_go_of_tasks(p_job_id text, p_run integer, p_task_ids text[]) returns void
language plpgsql set enable_seqscan = off as $$
declare
  v_places tid[];
begin
  select array_agg(o.place) into v_places from {schema}.ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.status is not distinct from 'pending'
    for update
  ) o;
  update {schema}.tasks t set due_at = null where t.ctid = any (v_places);
end $$;

-- Ends the hold of a job that a find has for the caller, whose message no queue took.
-- Fence: the attempt, so that a step which is to be retried later keeps its time. Locks: the job row.
create or replace function {schema}.let_go_of_job(p_job_id text, p_run integer, p_attempt integer) returns void
language plpgsql as $$
begin
  update {schema}.jobs j set due_at = null
  where j.job_id = p_job_id and j.run = p_run and j.attempt = p_attempt and j.status in ({waiting_jobs})
    and j.announced_at is null;
end $$;
