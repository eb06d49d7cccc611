-- Reruns: an ended job begins its next run, from what the last run left. The rows of that run stay beside the new ones.

-- Begins the job's next run.
-- Mode: failed (stages before the first that did not fully succeed are kept, and of that one the tasks that did; its
-- others get fresh attempts, and later stages are planned anew); from_stage (stages before p_from_stage are kept as
-- they are); all (nothing is kept). Kept rows are copied into the new run, so that planners, fan-in and finalize_job
-- find them. Where p_parameters or p_definition is null, that of the last run stays.
-- Outcome: rerun; refused (it has not ended); other_run (its run is not p_run any more); nothing_failed;
-- stage_not_reached; pruned (retention has deleted some of what would be kept); missing.
-- Fence: an ended job and its run.
-- Locks: the job row. Rows of the old run are only read, and an attempt that still settles there finds its job in
-- another run, so it cannot end as completed any more.
create or replace function {schema}.rerun_job(
  p_job_id text, p_run integer, p_mode text, p_from_stage integer, p_parameters jsonb, p_definition jsonb,
  p_reason text, p_actor text
) returns table (
  outcome text, status text, run integer, stage integer, is_paused boolean, kept_count integer, fresh_count integer
)
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_job record;
  v_first integer;
  v_planned boolean := false;
  v_status text;
  v_definition jsonb;
begin
  select j.run, j.stage, j.status, j.definition, j.paused_at into v_job
  from {schema}.jobs j where j.job_id = p_job_id for update;
  if not found then
    outcome := 'missing';
    return next;
    return;
  end if;
  status := v_job.status;
  run := v_job.run;
  stage := v_job.stage;
  is_paused := v_job.paused_at is not null;
  v_definition := coalesce(p_definition, v_job.definition);
  v_first := {schema}.first_stage_to_rerun(p_job_id, v_job.run, p_mode, p_from_stage);
  outcome := case
    when v_job.run <> p_run then 'other_run'
    when v_job.status not in ({ended_jobs}) then 'refused'
    when v_first is null then 'stage_not_reached'
    when p_mode = 'failed' and v_job.status = 'completed' then 'nothing_failed'
    when p_mode <> 'all' and not {schema}.has_all_tasks(p_job_id, v_job.run, v_first) then 'pruned'
    else 'rerun'
  end;
  if outcome <> 'rerun' then
    return next;
    return;
  end if;

  insert into {schema}.job_runs (
    job_id, run, status, parameters, definition, result, error, finished_at, followed_at
  )
  select j.job_id, j.run, j.status, j.parameters, j.definition, j.result, j.error, j.finished_at, v_now
  from {schema}.jobs j where j.job_id = p_job_id;
  if not found then
    perform {schema}.report_left_out('job_runs');
  end if;

  run := v_job.run + 1;
  if p_mode = 'failed' then
    select s.planned_at is not null into v_planned from {schema}.stages s
    where s.job_id = p_job_id and s.run = v_job.run and s.stage = v_first;
  end if;
  kept_count := {schema}.copy_kept_rows(p_job_id, v_job.run, v_first, coalesce(v_planned, false));
  if v_first > jsonb_array_length(v_definition -> 'stages') then
    v_status := 'finalizing';
    fresh_count := 0;
  elsif v_planned then
    v_status := 'processing';
    fresh_count := {schema}.copy_fresh_tasks(p_job_id, v_job.run, v_first);
  else
    v_status := 'queued';
    insert into {schema}.stages (job_id, run, stage, settings, created_at)
    values (p_job_id, rerun_job.run, v_first, v_definition -> 'stages' -> (v_first - 1), v_now);
    if not found then
      perform {schema}.report_left_out('stages');
    end if;
  end if;

  if not {schema}.has_all_tasks(p_job_id, rerun_job.run, v_first) then
    perform {schema}.report_left_out('tasks');
  end if;

  update {schema}.jobs j
  set status = v_status, run = rerun_job.run,
      stage = least(v_first, jsonb_array_length(v_definition -> 'stages')),
      total_stages = jsonb_array_length(v_definition -> 'stages'), definition = v_definition,
      parameters = coalesce(p_parameters, j.parameters), result = null, error = null, attempt = 0, due_at = null,
      announced_at = null, paused_at = null, cancel_deadline_at = null, finished_at = null,
      run_started_at = v_now, updated_at = v_now, start_at = null
  where j.job_id = p_job_id
  returning j.status, j.stage into status, stage;
  if not found then
    perform {schema}.report_left_out('jobs');
  end if;
  perform {schema}.record_event(p_job_id, rerun_job.run, v_first, null, 'job_rerun',
    jsonb_build_object('mode', p_mode, 'kept_count', kept_count, 'fresh_count', fresh_count, 'reason', p_reason,
      'actor', p_actor, 'from_run', v_job.run, 'parameters', p_parameters));
  perform {schema}.record_audit('rerun', p_job_id, p_actor, p_reason,
    jsonb_build_object('from', v_job.status, 'run', v_job.run, 'mode', p_mode, 'to_run', rerun_job.run));
  if v_planned then
    -- Out of the usual order, but nobody can hold the lock of a run that begins here.
    perform {schema}.lock_stage(p_job_id, rerun_job.run, v_first);
    if not {schema}.ensure_watch(p_job_id, rerun_job.run, v_first) then
      status := {schema}.close_stage(p_job_id, rerun_job.run, v_first);
    end if;
  end if;
  return next;
end $$;

-- The stage where a rerun begins; one past the last when only the job's own summary is missing.
-- Null when a stage before p_from_stage has not ended well enough to be kept, or there is no such stage.
create or replace function {schema}.first_stage_to_rerun(
  p_job_id text, p_run integer, p_mode text, p_from_stage integer
) returns integer
language sql stable as $$
  select case p_mode
    when 'all' then 1
    when 'failed' then coalesce(min(s.stage) filter (where s.status <> 'completed'), max(s.stage) + 1)
    else case when p_from_stage between 1 and max(j.total_stages)
      and p_from_stage - 1 = count(*) filter (
        where s.stage < p_from_stage and s.status in ({completed_stages}))
      then p_from_stage end
  end
  from {schema}.jobs j
  join {schema}.stages s on s.job_id = j.job_id and s.run = p_run
  where j.job_id = p_job_id
$$;

-- Whether the stages up to this one have all the tasks that they were planned with.
create or replace function {schema}.has_all_tasks(p_job_id text, p_run integer, p_stage integer) returns boolean
language sql stable as $$
  select (
    select coalesce(sum(s.expected_count), 0) from {schema}.stages s
    where s.job_id = p_job_id and s.run = p_run and s.stage <= p_stage
  ) = (
    select count(*) from {schema}.tasks t where t.job_id = p_job_id and t.run = p_run and t.stage <= p_stage
  )
$$;

-- Copies stages before p_first with their tasks into the next run, and returns the number of tasks.
-- With p_partly also the completed tasks of p_first itself, whose row is then open again.
create or replace function {schema}.copy_kept_rows(p_job_id text, p_run integer, p_first integer, p_partly boolean)
returns integer
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_count integer;
begin
  insert into {schema}.stages (
    job_id, run, stage, status, settings, expected_count, failed_count, created_at, planned_at, finished_at, from_run
  )
  select s.job_id, s.run + 1, s.stage, s.status, s.settings, s.expected_count, s.failed_count, s.created_at,
    s.planned_at, s.finished_at, coalesce(s.from_run, s.run)
  from {schema}.stages s
  where s.job_id = p_job_id and s.run = p_run and s.stage < p_first;
  if p_first > 1 and not found then
    perform {schema}.report_left_out('stages');
  end if;
  if p_partly then
    insert into {schema}.stages (
      job_id, run, stage, status, settings, expected_count, created_at, planned_at, from_run
    )
    select s.job_id, s.run + 1, s.stage, 'processing', s.settings, s.expected_count, v_now, v_now,
      coalesce(s.from_run, s.run)
    from {schema}.stages s
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_first;
    if not found then
      perform {schema}.report_left_out('stages');
    end if;
  end if;
  insert into {schema}.tasks (
    job_id, run, task_id, stage, task_index, task_type, queue, name, parameters, status, attempt, interruptions,
    lease_owner, progress, result, error, created_at, announced_at, started_at, finished_at, from_run
  )
  select t.job_id, t.run + 1, t.task_id, t.stage, t.task_index, t.task_type, t.queue, t.name, t.parameters, t.status,
    t.attempt, t.interruptions, t.lease_owner, t.progress, t.result, t.error, t.created_at, t.announced_at,
    t.started_at, t.finished_at, coalesce(t.from_run, t.run)
  from {schema}.tasks t
  where t.job_id = p_job_id and t.run = p_run
    and ((t.stage < p_first and t.status in ({decided_tasks}))
      or (p_partly and t.stage = p_first and t.status = 'completed'));
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- Copies the tasks of a stage that did not complete into the next run, with all their attempts left.
-- They are parked, since they need a message now; more than a first window, and those of a stage with limits, are
-- announced in windows instead. A fan-in
-- task's source moves to the new run with it. Returns their number.
create or replace function {schema}.copy_fresh_tasks(p_job_id text, p_run integer, p_stage integer) returns integer
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_count integer;
  v_window integer;
  v_is_windowed boolean;
begin
  select count(*) into v_count from {schema}.tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status <> 'completed';
  select {schema}.first_window(s.settings),
    v_count > {schema}.first_window(s.settings) or (v_count > 0 and s.settings ->> 'limits' is not null)
  into v_window, v_is_windowed
  from {schema}.stages s
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  insert into {schema}.tasks (
    job_id, run, task_id, stage, task_index, task_type, queue, name, parameters, created_at, parked_at, is_windowed,
    is_limited
  )
  select t.job_id, t.run + 1, t.task_id, t.stage, t.task_index, t.task_type, t.queue, t.name,
    case when t.parameters ? 'fan_in_source'
      then jsonb_set(t.parameters, array['fan_in_source', 'run'], to_jsonb(t.run + 1)) else t.parameters end,
    v_now, case when not v_is_windowed then v_now end, v_is_windowed, t.is_limited
  from {schema}.tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status <> 'completed';
  if v_is_windowed then
    perform {schema}.open_window(p_job_id, p_run + 1, p_stage, v_window);
  end if;
  return v_count;
end $$;
