-- Planning: a stage gets its tasks in one transaction. Many tasks: begin_stage_plan, COPY, seal_stage. Few:
-- plan_small_stage.

-- Opens the planning of a stage; the caller inserts the tasks and seals the stage in the same transaction.
-- Returns: ready; busy; missing; stale_run; closed (it is planned already, or not to be planned any more); paused;
-- expired (a deadline has passed: the caller lets enforce_deadlines end it).
-- Fence: the stage's lock is tried and not waited for, so that a duplicate message gets `busy` and ends.
-- Locks: the stage.
create or replace function {schema}.begin_stage_plan(p_job_id text, p_run integer, p_stage integer) returns text
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_job record;
begin
  if not {schema}.try_lock_stage(p_job_id, p_run, p_stage) then
    return 'busy';
  end if;
  select j.run, j.stage, j.status, j.paused_at, s.status as stage_status into v_job
  from {schema}.jobs j
  left join {schema}.stages s on s.job_id = j.job_id and s.run = p_run and s.stage = p_stage
  where j.job_id = p_job_id;
  if not found then
    return 'missing';
  elsif v_job.run <> p_run then
    return 'stale_run';
  elsif v_job.status <> 'queued' or v_job.stage <> p_stage or v_job.stage_status is distinct from 'queued' then
    return 'closed';
  elsif v_job.paused_at is not null then
    return 'paused';
  elsif {schema}.find_missed_deadline(p_job_id, p_run, p_stage, {schema}.clock()) is not null then
    return 'expired';
  end if;
  return 'ready';
end $$;

-- Seals a stage whose tasks are all inserted: from now on it can end, and one without tasks ends here.
-- The size chosen for its messages is kept in its settings, for announcing its tasks again. Returns the job's
-- status.
-- Locks: the stage's, taken by begin_stage_plan in this transaction; then the job row.
-- Raises CM002 when the job does not wait for this stage.
create or replace function {schema}.seal_stage(
  p_job_id text, p_run integer, p_stage integer, p_expected_count integer, p_tasks_per_message integer
) returns text
language plpgsql set plan_cache_mode = force_generic_plan as $$
begin
  update {schema}.jobs j set status = 'processing', updated_at = {schema}.clock()
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = 'queued';
  if not found then
    raise exception 'job % run % does not wait for stage %', p_job_id, p_run, p_stage using errcode = 'CM002';
  end if;
  update {schema}.stages s
  set status = 'processing', expected_count = p_expected_count, planned_at = {schema}.clock(),
      settings = case when p_tasks_per_message is null then s.settings
        else s.settings || jsonb_build_object('tasks_per_message', p_tasks_per_message) end
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.status = 'queued';
  if not found then
    perform {schema}.report_left_out('stages');
  end if;
  perform {schema}.record_event(p_job_id, p_run, p_stage, null, 'stage_planned',
    jsonb_build_object('expected_count', p_expected_count));
  perform {schema}.ensure_watch(p_job_id, p_run, p_stage);
  if p_expected_count = 0 then
    return {schema}.close_stage(p_job_id, p_run, p_stage);
  end if;
  return 'processing';
end $$;

-- Plans a stage of few tasks in one call.
-- With a lease the tasks are born claimed: the planner runs them itself and no message is needed. Then it commits
-- asynchronously, as a claim does: a crash that undoes it undoes nothing that was done, since the first result is
-- written with all that came before it, and the job's message is still unsettled. Returns `planned`, or an outcome of
-- begin_stage_plan. The same call once more, after its answer was lost with its connection, is `planned` too.
-- Fence and locks: those of begin_stage_plan and seal_stage.
create or replace function {schema}.plan_small_stage(
  p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_task_types text[], p_queues text[],
  p_names text[], p_parameters jsonb[], p_lease_id uuid, p_owner text,
  p_tasks_per_message integer
) returns text
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_outcome text := {schema}.begin_stage_plan(p_job_id, p_run, p_stage);
begin
  if v_outcome <> 'ready' then
    if v_outcome = 'closed' and {schema}.was_born_claimed(p_job_id, p_run, p_stage, p_task_ids[1], p_lease_id) then
      return 'planned';
    end if;
    return v_outcome;
  end if;
  if p_lease_id is not null then
    perform set_config('synchronous_commit', 'off', true);
  end if;
  perform {schema}.insert_few_tasks(p_job_id, p_run, p_stage, p_task_ids, p_task_types, p_queues, p_names, p_parameters,
    p_lease_id, p_owner, (s.settings ->> 'lease_seconds')::double precision)
  from {schema}.stages s where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  perform {schema}.seal_stage(p_job_id, p_run, p_stage, coalesce(cardinality(p_task_ids), 0),
    p_tasks_per_message);
  return 'planned';
end $$;

-- Whether a task is under the lease that it was planned with, so that its planner has it.
create or replace function {schema}.was_born_claimed(
  p_job_id text, p_run integer, p_stage integer, p_task_id text, p_lease_id uuid
) returns boolean
language sql stable as $$
  select exists (
    select from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_id and t.stage = p_stage
      and t.lease_id = p_lease_id
  )
$$;

-- Inserts the tasks of a stage, the last one watched; with a lease they are born claimed.
-- Raises CM006 when not all of them were inserted: a stage that counts tasks without rows would end without them.
create or replace function {schema}.insert_few_tasks(
  p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_task_types text[], p_queues text[],
  p_names text[], p_parameters jsonb[], p_lease_id uuid, p_owner text, p_lease_seconds double precision
) returns void
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_now timestamptz := {schema}.clock();
  v_inserted bigint;
begin
  insert into {schema}.tasks (
    job_id, run, task_id, stage, task_index, task_type, queue, name, parameters,
    status, attempt, lease_id, lease_owner, lease_expires_at, started_at, is_watched
  )
  select p_job_id, p_run, t.task_id, p_stage, t.place - 1, t.task_type, t.queue, t.name, t.parameters,
    case when p_lease_id is null then 'pending' else 'processing' end,
    case when p_lease_id is null then 0 else 1 end,
    p_lease_id, p_owner,
    case when p_lease_id is not null then v_now + p_lease_seconds * interval '1 second' end,
    case when p_lease_id is not null then v_now end,
    t.place = cardinality(p_task_ids)
  from unnest(p_task_ids, p_task_types, p_queues, p_names, p_parameters)
    with ordinality as t(task_id, task_type, queue, name, parameters, place);
  get diagnostics v_inserted = row_count;
  if v_inserted <> coalesce(cardinality(p_task_ids), 0) then
    raise exception 'expected % tasks to be inserted, found %: a trigger or a rule of the table tasks keeps rows out; '
      'drop it', cardinality(p_task_ids), v_inserted using errcode = 'CM006';
  end if;
  if p_lease_id is not null and {schema}.has_waited() then
    perform {schema}.begin_leases_now(p_task_ids, array_fill(p_lease_id, array[cardinality(p_task_ids)]), true);
  end if;
end $$;
