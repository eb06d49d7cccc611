-- The watch: while a stage runs, exactly one of its open tasks is watched. A process that ends any other task knows
-- that it is not the last, and does not look at its neighbours; the one that ends the watched task passes the watch on,
-- or is the last. So completions of one stage share its lock and commit side by side. docs/explanation/locking.md has a
-- diagram and figures.

-- Passes the watch from tasks that end in this transaction to another open task that nobody holds at this moment.
-- False when there is none: then only the exclusive stage lock can show whether the stage has ended.
-- Locks: one more task row, not waited for; before the stage's lock.
create or replace function {schema}.pass_watch(p_job_id text, p_run integer, p_stage integer, p_ending_ids text[])
returns boolean
language plpgsql set enable_seqscan = off as $$
declare
  v_heir text;
begin
  -- The last id first: tasks are taken from the front, so it is watched longest.
  select t.task_id into v_heir from {schema}.tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
    and t.status in ({open_tasks}) and t.task_id <> all (p_ending_ids)
  order by t.task_id desc limit 1 for update skip locked;
  if v_heir is null then
    return false;
  end if;
  update {schema}.tasks t set is_watched = true
  where t.job_id = p_job_id and t.run = p_run and t.task_id = v_heir;
  return true;
end $$;

-- Makes sure that an open task is watched, after others were ended. False when no task is open.
-- If other transactions hold every open task at this moment, the stage is marked as unwatched: the end of each of its
-- tasks then decides under the exclusive lock. Waiting for such a row would be a deadlock, since its holder may wait
-- for this stage.
-- Locks: the stage's exclusive lock is held by the caller; then one task row, not waited for, and the stage row.
create or replace function {schema}.ensure_watch(p_job_id text, p_run integer, p_stage integer) returns boolean
language plpgsql set enable_seqscan = off as $$
declare
  v_task_id text;
begin
  if exists (
    select 1 from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.is_watched
      and t.status in ({open_tasks})
  ) then
    return true;
  end if;
  select t.task_id into v_task_id from {schema}.tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
    and t.status in ({open_tasks})
  order by t.task_id desc limit 1 for update skip locked;
  if v_task_id is null and not exists (
    select 1 from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and t.status in ({open_tasks})
  ) then
    return false;
  end if;
  update {schema}.tasks t set is_watched = true
  where t.job_id = p_job_id and t.run = p_run and t.task_id = v_task_id;
  update {schema}.stages s set is_unwatched = v_task_id is null
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.is_unwatched <> (v_task_id is null);
  return true;
end $$;
