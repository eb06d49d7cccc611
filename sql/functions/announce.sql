-- Announcements commit asynchronously: one that a crash of the server takes back costs a message that does nothing.

-- The messages for these rows are confirmed: pending becomes queued. Rows that moved on meanwhile stay as they are, but a
-- queued one remembers the later message, so that it is not missed while that one waits.
create or replace function {schema}.mark_tasks_announced(p_job_id text, p_run integer, p_task_ids text[]) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_ids text[];
  v_count integer;
begin
  perform set_config('synchronous_commit', 'off', true);
  select array_agg(o.task_id) into v_ids from (
    select t.task_id from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = any (p_task_ids)
      and (t.status in ({waiting_tasks})) is not false
    order by t.task_id for update
  ) o;
  update {schema}.tasks t
  set status = case t.status when 'pending' then 'queued' else t.status end, announced_at = {schema}.clock(),
      due_at = case t.status when 'pending' then null else t.due_at end
  where t.job_id = p_job_id and t.run = p_run and t.task_id = any (v_ids);
  get diagnostics v_count = row_count;
  return v_count;
end $$;

create or replace function {schema}.mark_job_announced(p_job_id text, p_run integer, p_stage integer) returns boolean
language plpgsql set plan_cache_mode = force_generic_plan as $$
begin
  perform set_config('synchronous_commit', 'off', true);
  update {schema}.jobs j set announced_at = {schema}.clock()
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status in ({waiting_jobs});
  return found;
end $$;

-- Lets go of tasks that a find holds for the caller, whose messages no queue took: the next sweep finds them.
-- Locks: task rows by id.
create or replace function {schema}.let_go_of_tasks(p_job_id text, p_run integer, p_task_ids text[]) returns void
language plpgsql set enable_seqscan = off as $$
declare
  v_ids text[];
begin
  select array_agg(o.task_id) into v_ids from (
    select t.task_id from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = any (p_task_ids)
      and t.status is not distinct from 'pending'
    order by t.task_id for update
  ) o;
  update {schema}.tasks t set due_at = null
  where t.job_id = p_job_id and t.run = p_run and t.task_id = any (v_ids);
end $$;

-- The same for a job. A step that is to be tried again later has another attempt, and keeps its time.
create or replace function {schema}.let_go_of_job(p_job_id text, p_run integer, p_attempt integer) returns void
language plpgsql as $$
begin
  update {schema}.jobs j set due_at = null
  where j.job_id = p_job_id and j.run = p_run and j.attempt = p_attempt and j.status in ({waiting_jobs})
    and j.announced_at is null;
end $$;
