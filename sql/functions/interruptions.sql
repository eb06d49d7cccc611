-- Interruptions and timeouts: attempts that end without an outcome of their own, since their process died, lost its
-- lease, drains, or did not stop in time. An interruption has its own budget and spends no retry; a timeout is a failed
-- attempt.

-- Takes back the tasks of one stage whose lease has run out.
-- The row notes whether the process was refused more time (`timed_out_at`). If it was not, this is an interruption: the
-- process died or could not reach the database; the task is pending again, and beyond the stage's max_interruptions it
-- has failed as InterruptedTooOften. If it was, this is a timeout: the handler did not stop after task_timeout_seconds;
-- the attempt has failed, and is due again after the stage's back-off, or the task has failed as TaskTimedOut when no
-- attempt is left. In a stage or job that has ended they become cancelled. task_ids and owners name at most p_shown of
-- the tasks, and of the processes that had them.
-- Locks: task rows by id (those that another transaction holds are skipped), then the stage, then the job row.
-- Raises CM001 when the stage ended between the look at it and its lock: call again.
create or replace function {schema}.take_back_tasks(p_job_id text, p_run integer, p_stage integer, p_shown integer)
returns table (
  taken_back integer, given_up integer, is_last_task_in_stage boolean, timed_out integer, task_ids text[], owners text[]
)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_stage record;
  v_expired tid[];
  v_timed_out tid[];
  v_failed text[];
  v_total integer;
begin
  select {stage_is_open} as is_open,
         (s.settings ->> 'max_interruptions')::integer as allowed
  into v_stage
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;

  select array_agg(e.place) filter (where e.timed_out_at is null or not v_stage.is_open),
         array_agg(e.place) filter (where e.timed_out_at is not null and v_stage.is_open),
         (array_agg(e.task_id))[:p_shown], (array_agg(distinct e.lease_owner))[:p_shown]
  into v_expired, v_timed_out, task_ids, owners
  from (
    select t.ctid as place, t.task_id, t.timed_out_at, t.lease_owner from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and t.status = 'processing' and t.lease_expires_at <= v_now
    order by t.task_id for update skip locked
  ) e;

  with ended as (
    update {schema}.tasks t
    set status = case when not v_stage.is_open then 'cancelled'
          when t.interruptions < v_stage.allowed then 'pending' else 'failed' end,
        interruptions = t.interruptions + 1, lease_id = null, lease_expires_at = null, announced_at = null,
        is_watched = t.is_watched and v_stage.is_open and t.interruptions < v_stage.allowed,
        finished_at = case when not v_stage.is_open or t.interruptions >= v_stage.allowed then v_now end,
        error = case when v_stage.is_open and t.interruptions >= v_stage.allowed then {schema}.interrupted_error(
          p_job_id, p_run, t.task_id, t.attempt, t.interruptions + 1, t.lease_owner, v_now) else t.error end
    where t.ctid = any (v_expired)
    returning t.task_id, t.status, t.interruptions, t.lease_owner
  ), noted as (
    select {schema}.record_event(p_job_id, p_run, p_stage, e.task_id, 'task_interrupted',
      jsonb_build_object('interruptions', e.interruptions, 'owner', e.lease_owner)), e.task_id, e.status from ended e
  )
  select array_agg(n.task_id) filter (where n.status = 'failed'), count(*) into v_failed, v_total from noted n;

  timed_out := coalesce(cardinality(v_timed_out), 0);
  v_total := v_total + timed_out;
  if timed_out > 0 then
    v_failed := v_failed || {schema}.end_timed_out_attempts(p_job_id, p_run, p_stage, v_timed_out);
  end if;
  given_up := coalesce(cardinality(v_failed), 0);
  taken_back := v_total - given_up;
  is_last_task_in_stage := false;
  if given_up > 0 or (v_total > 0 and not v_stage.is_open) then
    is_last_task_in_stage := {schema}.check_stage(p_job_id, p_run, p_stage, v_stage.is_open,
      case when given_up > 0 then v_failed end);
  end if;
  return next;
end $$;

-- Takes back tasks whose lease has run out, as a process of the release before calls it.
-- Its statements are prepared, so the result may not change while it runs.
create or replace function {schema}.take_back_tasks(p_job_id text, p_run integer, p_stage integer)
returns table (taken_back integer, given_up integer, is_last_task_in_stage boolean, timed_out integer)
language sql as $$
  select t.taken_back, t.given_up, t.is_last_task_in_stage, t.timed_out
  from {schema}.take_back_tasks(p_job_id, p_run, p_stage, 0) t;
$$;

-- The error of a task that was interrupted too often: what was lost, its processes or its outcomes, and why.
create or replace function {schema}.interrupted_error(
  p_job_id text, p_run integer, p_task_id text, p_attempt integer, p_interruptions integer, p_owner text,
  p_now timestamptz
) returns jsonb
language plpgsql stable as $$
declare
  v_alone integer;
  v_unwritten integer;
  v_reason text;
begin
  select count(*) filter (where a.event = 'task_runs_alone'), count(*) filter (where a.event = 'outcome_not_written'),
    (array_agg(a.detail ->> 'reason' order by a.event_id desc) filter (where a.event = 'outcome_not_written'))[1]
  into v_alone, v_unwritten, v_reason
  from {schema}.job_events a
  where a.job_id = p_job_id and a.run = p_run and a.task_id = p_task_id
    and a.event in ('task_runs_alone', 'outcome_not_written');
  return {schema}.stored_error('InterruptedTooOften', concat_ws('; ',
    case when v_unwritten > 0 then
      format('the database did not take its outcome %s, last: %s', {schema}.times_in_words(v_unwritten), v_reason) end,
    case when v_unwritten < p_interruptions then
      format('its process died, or lost the database, %s without an outcome%s (last: %s). Usually the memory was used up, '
        'and the system killed the process; else native code crashed, or the handler called os._exit',
        {schema}.times_in_words(p_interruptions - v_unwritten),
        case when v_alone > 0 then
          format(', and %s it ran alone there, so that nothing else in that process was the reason',
            {schema}.times_in_words(v_alone))
        end, p_owner) end), false, p_attempt, p_now);
end $$;

-- Notes in the job's timeline that outcomes of tasks which still run under this lease could not be written, and why:
-- their processes were not lost. Returns how many.
-- Fence: the lease. Locks: none but the new rows'.
create or replace function {schema}.note_unwritten(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_reason text
) returns integer
language sql set enable_seqscan = off as $$
  select count({schema}.record_event(p_job_id, p_run, p_stage, t.task_id, 'outcome_not_written',
    jsonb_build_object('reason', p_reason)))::integer
  from {schema}.ids_in_order(p_task_ids) as named
  join {schema}.tasks t on t.job_id = p_job_id and t.run = p_run and t.task_id = named.id
  where t.stage = p_stage and t.status is not distinct from 'processing' and t.lease_id = p_lease_id;
$$;

-- Notes in the job's timeline that the end of its step could not be written, and why; the same once in a minute.
-- Returns whether it was noted.
-- Fence: the job waits for a step of that stage. Locks: none but the new row's.
create or replace function {schema}.note_step_unwritten(
  p_job_id text, p_run integer, p_stage integer, p_step text, p_reason text
) returns boolean
language plpgsql as $$
declare
  v_detail jsonb := jsonb_build_object('step', p_step, 'reason', p_reason);
begin
  if not exists (
    select from {schema}.jobs j
    where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status in ({waiting_jobs})
  ) or exists (
    select from {schema}.job_events e
    where e.job_id = p_job_id and e.run = p_run and e.stage = p_stage and e.event = 'job_step_not_written'
      and e.detail = v_detail and e.at > {schema}.clock() - interval '1 minute'
  ) then
    return false;
  end if;
  perform {schema}.record_event(p_job_id, p_run, p_stage, null, 'job_step_not_written', v_detail);
  return true;
end $$;

-- Ends attempts that ran out of time and of their lease, and returns the tasks that have no attempt left and failed.
-- The others are due again after the stage's back-off. The caller holds the rows at these places and checks the stage.
create or replace function {schema}.end_timed_out_attempts(
  p_job_id text, p_run integer, p_stage integer, p_places tid[]
) returns text[]
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_settings jsonb;
  v_allowed integer;
  v_failed text[];
begin
  select s.settings, (s.settings -> 'retry' ->> 'max_attempts')::integer into v_settings, v_allowed
  from {schema}.stages s
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  with ended as (
    update {schema}.tasks t
    set lease_id = null, lease_expires_at = null, announced_at = null,
        is_watched = t.is_watched and t.attempt - t.interruptions < v_allowed,
        status = case when t.attempt - t.interruptions < v_allowed then 'pending_retry' else 'failed' end,
        due_at = case when t.attempt - t.interruptions < v_allowed then v_now + interval '1 second'
          * {schema}.retry_delay(v_settings -> 'retry', t.attempt - t.interruptions) end,
        finished_at = case when t.attempt - t.interruptions >= v_allowed then v_now end,
        error = {schema}.stored_error('TaskTimedOut',
          format('ran longer than %s s, the task_timeout_seconds of its stage %s, and did not stop when it was asked to; '
            'its worker was %s', (v_settings ->> 'task_timeout_seconds')::double precision, p_stage, t.lease_owner), true, t.attempt, v_now)
    where t.ctid = any (p_places)
    returning t.task_id, t.status, t.error, extract(epoch from t.due_at - v_now)::double precision as delay_seconds
  ), noted as (
    select {schema}.record_event(p_job_id, p_run, p_stage, e.task_id,
      'retry_scheduled', e.error || jsonb_build_object('delay_seconds', e.delay_seconds))
    from ended e where e.status = 'pending_retry'
  )
  select array_agg(e.task_id) filter (where e.status = 'failed') into v_failed
  from ended e cross join (select count(*) from noted) n;
  return v_failed;
end $$;

-- Gives claimed tasks back before their lease runs out, and returns those that need a message again: give_back_tasks.
-- Fence: the lease. Locks: as give_back_tasks.
create or replace function {schema}.release_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_started boolean
) returns text[]
language plpgsql as $$
begin
  return {schema}.give_back_tasks(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_started, p_started, null);
end $$;

-- Fails those of the tasks, which a process that drains has just released, that seem to end their processes.
-- Returns their ids. The caller holds the rows, and checks the stage.
create or replace function {schema}.fail_enders(
  p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_most integer
) returns text[]
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_places tid[];
  v_failed text[];
begin
  select array_agg(h.place) into v_places
  from {schema}.ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
      and t.interruptions >= p_most and t.started_at > v_now - interval '1 minute'
    offset 0
  ) h;
  with ended as (
    update {schema}.tasks t
    set status = 'failed', finished_at = v_now, announced_at = null, is_watched = false,
        error = {schema}.stored_error('InterruptedTooOften',
          format('its process was asked to end %s times while it ran, now within a minute of its begin (last: %s). If '
            'nobody stops processes so often, it sends SIGTERM to its own process or process group, or a program that it '
            'starts does: start that in a session of its own, or the handler in a process of its own',
            t.interruptions, t.lease_owner), false, t.attempt, v_now)
    where t.ctid = any (v_places)
    returning t.task_id
  )
  select coalesce(array_agg(e.task_id), array[]::text[]) into v_failed from ended e;
  return v_failed;
end $$;

-- Gives claimed tasks back before their lease runs out, and returns those that are pending again.
-- p_started false: their handler never began, so no attempt is counted, and no start by a limit's rate. True: an
-- interruption, of a process that drains, and it fails nothing: a deployment is nobody's fault. But a task that sends its
-- process the signal to end would end one after the other: one that was interrupted twice as often as its stage allows
-- (10 times at least), and again within a minute of its begin, has failed as InterruptedTooOften.
-- p_decides: tasks may fail in this transaction, as those that p_started names may.
-- p_until: up to this id they wait in their stage's line again; null: none does.
-- Fence: the lease. Locks: if they did not begin, those of the stage's limits; task rows by id, then the stage (shared
-- without p_decides), then the job row.
-- Raises CM001 when the stage ended between the look at it and its lock: call again.
create or replace function {schema}.give_back_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_started boolean,
  p_decides boolean, p_until text
) returns text[]
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_open boolean;
  v_ids text[];
  v_places tid[];
  v_limits text[];
  v_most integer;
  v_failed text[];
begin
  select {stage_is_open}, case when not p_started then {schema}.limit_names(s.settings) end,
         2 * greatest((s.settings ->> 'max_interruptions')::integer, 5)
  into v_open, v_limits, v_most
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  if v_limits is not null then
    perform {schema}.lock_limits(v_limits);
  end if;
  select coalesce(array_agg(named.id), array[]::text[]), array_agg(h.place) into v_ids, v_places
  from {schema}.ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
      and t.status is not distinct from 'processing' and t.lease_id = p_lease_id
    for update
  ) h;
  if v_open and cardinality(v_ids) > 0 and not {schema}.keep_stage_open(p_job_id, p_run, p_stage, p_decides) then
    raise exception 'stage % of job % run % ended meanwhile', p_stage, p_job_id, p_run using errcode = 'CM001';
  end if;
  if v_limits is not null then
    perform {schema}.take_back_starts(v_limits, v_places);
  end if;
  update {schema}.tasks t
  set status = case when v_open then 'pending' else 'cancelled' end,
      finished_at = case when v_open then null else v_now end,
      is_watched = t.is_watched and v_open,
      attempt = t.attempt - case when p_started then 0 else 1 end,
      interruptions = t.interruptions + case when p_started then 1 else 0 end,
      lease_id = null, lease_expires_at = null,
      announced_at = case when v_open and t.task_id <= p_until then v_now end
  where t.ctid = any (v_places);
  if p_started and v_open then
    v_failed := {schema}.fail_enders(p_job_id, p_run, p_stage, v_ids, v_most);
    v_ids := array(select named.id from {schema}.ids_in_order(v_ids) as named where named.id <> all (v_failed));
    if cardinality(v_failed) > 0 then
      perform {schema}.check_stage(p_job_id, p_run, p_stage, true, v_failed);
    end if;
  end if;
  if cardinality(v_ids) = 0 then
    return v_ids;
  elsif v_open then
    if p_started then
      perform {schema}.record_event(p_job_id, p_run, p_stage, null, 'tasks_released',
        jsonb_build_object('count', cardinality(v_ids)));
    end if;
    return v_ids;
  end if;
  perform {schema}.check_stage(p_job_id, p_run, p_stage, false, null);
  return array[]::text[];
end $$;
