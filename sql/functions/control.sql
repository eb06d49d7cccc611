-- Control: what operators do to a job that has not ended: cancel, pause, resume, adjust. rerun.sql begins an ended job
-- again.

-- Cancels a job: waiting tasks at once, running tasks when they end or when the grace is over.
-- Running tasks learn of it at their next heartbeat, and the job is `cancelling` until the last of them has ended;
-- force_cancel ends it after p_grace_seconds. Without a grace running tasks lose their leases at once. A further call
-- can only bring the deadline nearer. Returns the job's status afterwards, null for an unknown job.
-- Locks: the stage, then the job row; task rows that another transaction holds are skipped, and the janitor finds them.
create or replace function {schema}.cancel_job(
  p_job_id text, p_reason text, p_grace_seconds double precision, p_actor text
) returns text
language plpgsql as $$
declare
  v_deadline timestamptz := {schema}.clock() + p_grace_seconds * interval '1 second';
  v_job record;
begin
  select j.run, j.stage into v_job from {schema}.jobs j where j.job_id = p_job_id;
  if not found then
    return null;
  end if;
  perform {schema}.lock_stage(p_job_id, v_job.run, v_job.stage);
  select j.run, j.stage, j.status, j.cancel_deadline_at into v_job
  from {schema}.jobs j where j.job_id = p_job_id for update;
  -- It has ended, or a newer release gave it a status that this one does not know.
  if v_job.status not in ({open_jobs})
    or (v_job.status = 'cancelling' and v_deadline >= v_job.cancel_deadline_at) then
    return v_job.status;
  end if;
  perform {schema}.record_event(p_job_id, v_job.run, v_job.stage, null, 'cancel_requested',
    jsonb_build_object('reason', p_reason, 'actor', p_actor, 'grace_seconds', p_grace_seconds));
  perform {schema}.record_audit('cancel', p_job_id, p_actor, p_reason,
    jsonb_build_object('from', v_job.status, 'run', v_job.run, 'grace_seconds', p_grace_seconds));
  if v_job.status in ({running_jobs}) then
    perform {schema}.cancel_open_tasks(p_job_id, v_job.run, v_job.stage, p_grace_seconds <= 0);
    if {schema}.ensure_watch(p_job_id, v_job.run, v_job.stage) then
      update {schema}.jobs j
      set status = 'cancelling', cancel_deadline_at = v_deadline, paused_at = null, updated_at = {schema}.clock(),
          error = coalesce(j.error, {schema}.cancelled_error(p_reason))
      where j.job_id = p_job_id;
      if not found then
        perform {schema}.report_left_out('jobs');
      end if;
      perform {schema}.drop_kept_places(p_job_id, v_job.run);
      return 'cancelling';
    end if;
  end if;
  perform {schema}.end_job(p_job_id, v_job.run, 'cancelled', {schema}.cancelled_error(p_reason));
  return 'cancelled';
end $$;

-- Cancels a job with the default grace: the form that the release before calls.
create or replace function {schema}.cancel_job(p_job_id text, p_reason text) returns text
language plpgsql as $$
begin
  return {schema}.cancel_job(p_job_id, p_reason, {cancel_grace_seconds}, null);
end $$;

-- Ends a job that has been cancelling for longer than its grace.
-- Leases are revoked, so late results find nothing to write to. Returns the number of tasks that had not stopped; null
-- when the grace is not over, or the job ended meanwhile.
-- Fence: `cancelling`, which only leads to `cancelled`. Locks: task rows by id, then the stage, then the job row.
create or replace function {schema}.force_cancel(p_job_id text, p_run integer, p_stage integer) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_places tid[];
begin
  perform 1 from {schema}.jobs j
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = 'cancelling'
    and {cancel_deadline} <= v_now;
  if not found then
    return null;
  end if;
  select coalesce(array_agg(o.place), array[]::tid[]) into v_places from (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and t.status in ({open_tasks})
    order by t.task_id for update
  ) o;
  perform {schema}.keep_places(v_places);
  update {schema}.tasks t
  set status = 'cancelled', is_watched = false, lease_id = null, lease_expires_at = null, due_at = null,
      parked_at = null, finished_at = v_now,
      error = {schema}.stored_error('CancelForced',
        format('its job was cancelled, and it did not stop in time (on %s)', t.lease_owner), false, t.attempt, v_now)
  where t.ctid = any (v_places);
  if not {schema}.check_stage(p_job_id, p_run, p_stage, false, null) then
    return null;
  end if;
  perform {schema}.record_event(p_job_id, p_run, p_stage, null, 'cancel_forced',
    jsonb_build_object('count', cardinality(v_places)));
  return cardinality(v_places);
end $$;

-- Cancels the waiting tasks of a stage, and with p_with_running its running ones.
-- Rows that another transaction holds are skipped: they end as cancelled when they settle, are claimed, or lose their
-- lease. Returns how many were cancelled.
-- Locks: task rows by id, none waited for, so it may follow any other lock.
create or replace function {schema}.cancel_open_tasks(
  p_job_id text, p_run integer, p_stage integer, p_with_running boolean
) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_places tid[];
  v_count integer;
begin
  select array_agg(o.place) into v_places from (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and (t.status in ({waiting_tasks}) or (p_with_running and t.status = 'processing'))
    order by t.task_id for update skip locked
  ) o;
  if p_with_running and exists (
    select from {schema}.stages s
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.settings ->> 'limits' is not null
  ) then
    perform {schema}.keep_places(v_places);
  end if;
  update {schema}.tasks t
  set status = 'cancelled', is_watched = false, lease_id = null, lease_expires_at = null, due_at = null,
      parked_at = null, finished_at = {schema}.clock()
  where t.ctid = any (v_places);
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- Pauses a job: nothing new is claimed, planned or finalized, and running tasks end as they would.
-- Outcome: paused; already_paused; refused (it has ended or is being cancelled); missing.
-- Locks: the job row.
create or replace function {schema}.pause_job(p_job_id text, p_reason text, p_actor text)
returns table (outcome text, status text, run integer, stage integer, is_paused boolean)
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_job record;
begin
  select j.status, j.run, j.stage, j.paused_at into v_job from {schema}.jobs j where j.job_id = p_job_id for update;
  outcome := case
    when not found then 'missing'
    when v_job.status not in ({active_jobs}) then 'refused'
    when v_job.paused_at is not null then 'already_paused'
    else 'paused'
  end;
  status := v_job.status;
  run := v_job.run;
  stage := v_job.stage;
  is_paused := outcome = 'paused' or v_job.paused_at is not null;
  if outcome = 'paused' then
    update {schema}.jobs j set paused_at = v_now, updated_at = v_now where j.job_id = p_job_id;
    if not found then
      perform {schema}.report_left_out('jobs');
    end if;
    perform {schema}.record_event(p_job_id, v_job.run, v_job.stage, null, 'job_paused',
      jsonb_build_object('reason', p_reason, 'actor', p_actor));
    perform {schema}.record_audit('pause', p_job_id, p_actor, p_reason,
      jsonb_build_object('from', v_job.status, 'run', v_job.run));
  end if;
  return next;
end $$;

-- Lets a paused job go on; the time of the pause does not count against its deadlines.
-- Its step and its parked tasks have to be announced again: the caller does that, or the janitor.
-- Outcome: resumed; not_paused; refused (it has ended or is being cancelled); missing. wait_seconds: until a step that
-- is to be retried is due.
-- Locks: the stage, then the job row.
create or replace function {schema}.resume_job(p_job_id text, p_reason text, p_actor text)
returns table (outcome text, status text, run integer, stage integer, is_paused boolean, wait_seconds double precision)
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_seen record;
  v_job record;
begin
  select j.run, j.stage into v_seen from {schema}.jobs j where j.job_id = p_job_id;
  if found then
    perform {schema}.lock_stage(p_job_id, v_seen.run, v_seen.stage);
  end if;
  select j.status, j.run, j.stage, j.paused_at, j.due_at into v_job
  from {schema}.jobs j where j.job_id = p_job_id for update;
  outcome := case
    when not found then 'missing'
    when v_job.status not in ({active_jobs}) then 'refused'
    when v_job.paused_at is null then 'not_paused'
    else 'resumed'
  end;
  status := v_job.status;
  run := v_job.run;
  stage := v_job.stage;
  is_paused := false;
  wait_seconds := greatest(extract(epoch from v_job.due_at - v_now), 0)::double precision;
  if outcome = 'resumed' then
    -- The time that it was paused does not count against its deadlines. A stage that it came to since the look above
    -- has hardly waited, and is not locked: it keeps its own.
    update {schema}.jobs j
    set paused_at = null, announced_at = null, updated_at = v_now,
        deadline_at = j.deadline_at + (v_now - v_job.paused_at)
    where j.job_id = p_job_id;
    if not found then
      perform {schema}.report_left_out('jobs');
    end if;
    update {schema}.stages s
    set deadline_at = s.deadline_at + (v_now - greatest(v_job.paused_at, s.created_at)),
        queue_deadline_at = s.queue_deadline_at + (v_now - greatest(v_job.paused_at, s.created_at))
    where s.job_id = p_job_id and s.run = v_seen.run and s.stage = v_seen.stage and v_job.run = v_seen.run
      and v_job.stage = v_seen.stage
      and coalesce(s.deadline_at, s.queue_deadline_at) is not null;
    perform {schema}.record_event(p_job_id, v_job.run, v_job.stage, null, 'job_resumed',
      jsonb_build_object('reason', p_reason, 'actor', p_actor,
        'paused_seconds', round(extract(epoch from v_now - v_job.paused_at)::numeric, 3)));
    perform {schema}.record_audit('resume', p_job_id, p_actor, p_reason,
      jsonb_build_object('from', v_job.status, 'run', v_job.run));
  end if;
  return next;
end $$;

-- Changes what decides how fast a job goes on: its priority, and max_parallel of the stage that runs.
-- p_changes has the fields to change: priority (null: that of its definition), max_parallel (null: no limit). What is
-- announced already is not taken back. p_stage is the stage that the caller means, null the present one.
-- Outcome: adjusted; unchanged; refused (it has ended or is being cancelled); other_stage (p_stage is not where the job
-- is); nothing_waits (of max_parallel: no task of the stage waits in line); missing. priority and max_parallel are
-- those that count now.
-- Locks: the window's, the stage, then the job row.
create or replace function {schema}.adjust_job(
  p_job_id text, p_stage integer, p_changes jsonb, p_reason text, p_actor text
) returns table (
  outcome text, status text, run integer, stage integer, is_paused boolean, priority text, max_parallel integer
)
language plpgsql as $$
#variable_conflict use_column
declare
  v_seen record;
  v_job record;
  v_stage record;
  v_max_parallel integer := (p_changes ->> 'max_parallel')::integer;
begin
  select j.run, j.stage into v_seen from {schema}.jobs j where j.job_id = p_job_id;
  if found and p_changes ? 'max_parallel' then
    perform {schema}.lock_window(p_job_id, v_seen.run, v_seen.stage);
    perform {schema}.lock_stage(p_job_id, v_seen.run, v_seen.stage);
  end if;
  select j.status, j.run, j.stage, j.paused_at is not null as is_paused, j.priority,
    j.definition ->> 'priority' as declared
  into v_job from {schema}.jobs j where j.job_id = p_job_id for update;
  if not found then
    outcome := 'missing';
    return next;
    return;
  end if;
  select s.window_from, s.window_after, (s.settings ->> 'max_parallel')::integer as max_parallel into v_stage
  from {schema}.stages s where s.job_id = p_job_id and s.run = v_job.run and s.stage = v_job.stage;
  outcome := case
    when v_job.status not in ({active_jobs}) then 'refused'
    when coalesce(p_stage, v_job.stage) <> v_job.stage or (p_changes ? 'max_parallel'
      and (v_job.run, v_job.stage) <> (v_seen.run, v_seen.stage)) then 'other_stage'
    when p_changes ? 'max_parallel' and (v_job.status <> 'processing' or v_stage.window_after is null or not
      {schema}.has_tasks_in_line(p_job_id, v_job.run, v_job.stage, v_stage.window_from, v_stage.window_after)) then 'nothing_waits'
    when (not p_changes ? 'priority' or v_job.priority is not distinct from p_changes ->> 'priority')
      and (not p_changes ? 'max_parallel' or v_stage.max_parallel is not distinct from v_max_parallel) then 'unchanged'
    else 'adjusted'
  end;
  status := v_job.status;
  run := v_job.run;
  stage := v_job.stage;
  is_paused := v_job.is_paused;
  priority := case when outcome in ('adjusted', 'unchanged') and p_changes ? 'priority'
    then p_changes ->> 'priority' else v_job.priority end;
  max_parallel := case when outcome in ('adjusted', 'unchanged') and p_changes ? 'max_parallel'
    then v_max_parallel else v_stage.max_parallel end;
  if outcome = 'adjusted' then
    update {schema}.jobs j set priority = adjust_job.priority where j.job_id = p_job_id;
    if not found then
      perform {schema}.report_left_out('jobs');
    end if;
    if p_changes ? 'max_parallel' then
      -- As a new window, so that a larger number counts at once.
      update {schema}.stages s
      set settings = s.settings || jsonb_build_object('max_parallel', v_max_parallel), window_at = null,
          window_size = greatest(s.window_size, {schema}.first_window(
            s.settings || jsonb_build_object('max_parallel', v_max_parallel)))
      where s.job_id = p_job_id and s.run = v_job.run and s.stage = v_job.stage;
      if not found then
        perform {schema}.report_left_out('stages');
      end if;
    end if;
    perform {schema}.record_event(p_job_id, v_job.run, v_job.stage, null, 'job_adjusted',
      p_changes || jsonb_build_object('reason', p_reason, 'actor', p_actor));
    perform {schema}.record_audit('adjust', p_job_id, p_actor, p_reason, jsonb_build_object(
      'run', v_job.run, 'stage', v_job.stage, 'from', jsonb_build_object(
        'priority', coalesce(v_job.priority, v_job.declared), 'max_parallel', v_stage.max_parallel), 'to', p_changes));
  end if;
  priority := coalesce(priority, v_job.declared, 'normal');
  return next;
end $$;
