-- Schedules: what is decided about each tick is written once, under the schedule's row; its job is submitted afterwards.
-- A tick is decided about by one transaction: the row's next_tick_at moves past it together with the row that is written
-- for it, and (schedule, tick_at) is the key of those rows. Its job is submitted under the idempotency key in that row.

-- Writes a schedule, or another one in the place of that which the caller saw.
-- Outcome: created; replaced; changed (it is not as the caller saw it: nothing is written).
-- p_revision is 0 where the caller saw none. A pause stays; p_ticks are those that it skipped, where the times change.
-- Fence: the primary key, or the revision and next_tick_at that the caller saw. Locks: the schedule row.
create or replace function {schema}.put_schedule(
  p_name text, p_job_type text, p_parameters jsonb, p_cron text, p_time_zone text, p_catch_up text, p_overlap text,
  p_starts_at timestamptz, p_ends_at timestamptz, p_description text, p_next_tick_at timestamptz,
  p_revision integer, p_seen_tick_at timestamptz, p_ticks jsonb, p_actor text
) returns text
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  if p_revision = 0 then
    insert into {schema}.schedules (
      name, job_type, parameters, cron, time_zone, catch_up, overlap, starts_at, ends_at, description, next_tick_at,
      last_change, created_at, updated_at
    ) values (
      p_name, p_job_type, p_parameters, p_cron, p_time_zone, p_catch_up, p_overlap, p_starts_at, p_ends_at,
      p_description, p_next_tick_at, {schema}.schedule_change('created', p_actor, null), v_now, v_now
    ) on conflict do nothing;
    if not found then
      if not exists (select from {schema}.schedules s where s.name = p_name) then
        perform {schema}.report_left_out('schedules');
      end if;
      return 'changed';
    end if;
    perform {schema}.record_audit('schedule_put', '', p_actor, null, jsonb_build_object('schedule', p_name));
    return 'created';
  end if;
  if not {schema}.lock_schedule(p_name, p_revision, p_seen_tick_at) then
    return 'changed';
  end if;
  update {schema}.schedules s set job_type = p_job_type, parameters = p_parameters, cron = p_cron,
    time_zone = p_time_zone, catch_up = p_catch_up, overlap = p_overlap, starts_at = p_starts_at, ends_at = p_ends_at,
    description = p_description, next_tick_at = p_next_tick_at, revision = s.revision + 1,
    last_change = {schema}.schedule_change('replaced', p_actor, null), updated_at = v_now
  where s.name = p_name;
  if not found then
    perform {schema}.report_left_out('schedules');
  end if;
  perform {schema}.write_ticks(p_name, p_ticks);
  perform {schema}.record_audit('schedule_put', '', p_actor, null, jsonb_build_object('schedule', p_name));
  return 'replaced';
end $$;

-- The latest change of a schedule as its row holds it.
create or replace function {schema}.schedule_change(p_action text, p_actor text, p_reason text) returns jsonb
language sql stable as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'action', p_action, 'actor', p_actor, 'reason', p_reason, 'at', {schema}.clock()))
$$;

-- Decides about no more ticks of a schedule; again changes nothing. No row: there is no such schedule.
-- Locks: the schedule row.
create or replace function {schema}.pause_schedule(p_name text, p_reason text, p_actor text)
returns table (has_changed boolean)
language plpgsql as $$
begin
  select s.paused_at is null into has_changed from {schema}.schedules s where s.name = p_name for update;
  if not found then
    return;
  end if;
  if has_changed then
    update {schema}.schedules s set paused_at = {schema}.clock(), revision = s.revision + 1,
      last_change = {schema}.schedule_change('paused', p_actor, p_reason), updated_at = {schema}.clock()
    where s.name = p_name;
    if not found then
      perform {schema}.report_left_out('schedules');
    end if;
    perform {schema}.record_audit('schedule_pause', '', p_actor, p_reason, jsonb_build_object('schedule', p_name));
  end if;
  return next;
end $$;

-- Locks a schedule for a change; false where it is not as the caller saw it.
create or replace function {schema}.lock_schedule(p_name text, p_revision integer, p_seen_tick_at timestamptz)
returns boolean
language plpgsql as $$
begin
  perform from {schema}.schedules s
  where s.name = p_name and s.revision = p_revision and s.next_tick_at is not distinct from p_seen_tick_at
  for update;
  return found;
end $$;

-- Ends a schedule's pause and writes down that the ticks in it are skipped.
-- Returns false where it is not as the caller saw it: nothing is written.
-- Fence: the revision and next_tick_at that the caller saw; the pause. Locks: the schedule row.
create or replace function {schema}.resume_schedule(
  p_name text, p_revision integer, p_seen_tick_at timestamptz, p_ticks jsonb, p_next_tick_at timestamptz,
  p_reason text, p_actor text
) returns boolean
language plpgsql as $$
begin
  if not {schema}.lock_schedule(p_name, p_revision, p_seen_tick_at)
    or exists (select from {schema}.schedules s where s.name = p_name and s.paused_at is null) then
    return false;
  end if;
  update {schema}.schedules s set paused_at = null, next_tick_at = p_next_tick_at, revision = s.revision + 1,
    last_change = {schema}.schedule_change('resumed', p_actor, p_reason), updated_at = {schema}.clock()
  where s.name = p_name;
  if not found then
    perform {schema}.report_left_out('schedules');
  end if;
  perform {schema}.write_ticks(p_name, p_ticks);
  perform {schema}.record_audit('schedule_resume', '', p_actor, p_reason, jsonb_build_object('schedule', p_name));
  return true;
end $$;

-- Finds schedules with a tick that is due and that nothing is decided about, the longest overdue first.
create or replace function {schema}.find_due_schedules(p_limit integer) returns table (name text)
language sql stable as $$
  select s.name from {schema}.schedules s
  where s.next_tick_at <= {schema}.clock() and s.paused_at is null
  order by s.next_tick_at limit p_limit
$$;

-- Writes down what becomes of a schedule's due ticks, and moves its next_tick_at past them.
-- Returns false where the schedule is not as the caller saw it: nothing is written, since another process has decided.
-- Fence: the revision and next_tick_at that the caller saw, and no pause. Locks: the schedule row.
create or replace function {schema}.plan_ticks(
  p_name text, p_revision integer, p_seen_tick_at timestamptz, p_ticks jsonb, p_next_tick_at timestamptz
) returns boolean
language plpgsql as $$
begin
  if not {schema}.lock_schedule(p_name, p_revision, p_seen_tick_at)
    or exists (select from {schema}.schedules s where s.name = p_name and s.paused_at is not null) then
    return false;
  end if;
  update {schema}.schedules s set next_tick_at = p_next_tick_at where s.name = p_name;
  if not found then
    perform {schema}.report_left_out('schedules');
  end if;
  perform {schema}.write_ticks(p_name, p_ticks);
  return true;
end $$;

-- Writes ticks in their order: those with a reason are skipped, the others get what the schedule's overlap asks for.
-- Fence: the primary key, so that no tick has two rows. Locks: the caller has the schedule row.
create or replace function {schema}.write_ticks(p_name text, p_ticks jsonb) returns void
language plpgsql as $$
declare
  v_tick record;
  v_schedule record;
  v_now timestamptz := {schema}.clock();
  v_status text;
  v_reason text;
  v_detail text;
  v_open text;
  v_missed jsonb;
begin
  select s.overlap, s.job_type into v_schedule from {schema}.schedules s where s.name = p_name;
  for v_tick in
    select * from jsonb_to_recordset(p_ticks) as t(
      tick_at timestamptz, until_at timestamptz, parameters jsonb, submission_key text, reason text, detail text)
    order by t.tick_at
  loop
    v_status := 'due';
    v_reason := v_tick.reason;
    v_detail := v_tick.detail;
    if v_reason is not null then
      v_status := 'skipped';
      if v_reason = 'missed' then
        v_missed := jsonb_build_object('tick_at', coalesce(v_missed -> 'tick_at', to_jsonb(v_tick.tick_at)),
          'until_at', coalesce(v_tick.until_at, v_tick.tick_at), 'detail', v_detail);
      end if;
    elsif v_schedule.overlap <> 'allow' then
      v_open := {schema}.what_a_tick_waits_for(p_name);
      if v_open is not null and v_schedule.overlap = 'wait' then
        v_status := 'waiting';
        v_reason := 'overlap';
        v_detail := v_open;
        if (select count(*) from {schema}.schedule_ticks t where t.schedule = p_name and t.status = 'waiting') >= 100 then
          v_status := 'skipped';
          v_reason := 'too_many_waiting';
          v_detail := 'a hundred earlier ticks wait already';
        end if;
      elsif v_open is not null then
        v_status := 'skipped';
        v_reason := 'overlap';
        v_detail := v_open;
      end if;
    end if;
    insert into {schema}.schedule_ticks (
      schedule, tick_at, until_at, status, reason, detail, job_type, parameters, submission_key, created_at, decided_at
    ) values (
      p_name, v_tick.tick_at, v_tick.until_at, v_status, v_reason, v_detail, v_schedule.job_type, v_tick.parameters,
      v_tick.submission_key, v_now, case when v_status = 'skipped' then v_now end
    ) on conflict do nothing;
    if not found and not exists (
      select from {schema}.schedule_ticks t where t.schedule = p_name and t.tick_at = v_tick.tick_at
    ) then
      perform {schema}.report_left_out('schedule_ticks');
    end if;
  end loop;
  if v_missed is not null then
    perform {schema}.note_schedule_event(p_name, v_schedule.job_type, 'schedule.missed', v_missed);
  end if;
end $$;

-- The job of a schedule that has not ended, of the newest tick that has one; null where there is none.
-- It looks at the two hundred newest ticks.
create or replace function {schema}.find_open_job(p_name text) returns text
language sql stable as $$
  select j.job_id
  from (
    select t.submitted_job_id, t.tick_at from {schema}.schedule_ticks t
    where t.schedule = p_name order by t.tick_at desc limit 200
  ) t
  join {schema}.jobs j on j.job_id = t.submitted_job_id
  where j.status in ({open_jobs})
  order by t.tick_at desc limit 1
$$;

-- What keeps a schedule's next tick from its job, for people; null where nothing does.
-- That is an earlier tick that has no job yet, or an open job among those of its two hundred newest ticks.
create or replace function {schema}.what_a_tick_waits_for(p_name text) returns text
language sql stable as $$
  select coalesce(
    (select 'job ' || {schema}.find_open_job(p_name) || ' of the schedule has not ended'),
    (select 'the tick of ' || to_char(t.tick_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') || ' has no job yet'
     from {schema}.schedule_ticks t where t.schedule = p_name and t.status in ({open_ticks})
     order by t.tick_at limit 1))
$$;

-- Lets the first waiting tick of each schedule have its job where nothing is open any more; returns how many.
-- Where the schedule allows overlaps by now, all of its waiting ticks.
-- Fence: the status, under the schedule's row. Locks: schedule rows by name, those that others hold are skipped; then
-- the tick rows.
create or replace function {schema}.admit_waiting_ticks(p_limit integer) returns integer
language plpgsql as $$
declare
  v_schedule record;
  v_count integer := 0;
  v_changed integer;
begin
  for v_schedule in
    select s.name, s.overlap from {schema}.schedules s
    where s.name in (select t.schedule from {schema}.schedule_ticks t where t.status = 'waiting') and s.paused_at is null
    order by s.name limit p_limit for update skip locked
  loop
    update {schema}.schedule_ticks t set status = 'due', reason = null, detail = null
    where t.schedule = v_schedule.name and t.status = 'waiting'
      and (v_schedule.overlap = 'allow' or (
        t.tick_at = (select min(w.tick_at) from {schema}.schedule_ticks w
                     where w.schedule = v_schedule.name and w.status = 'waiting')
        and not exists (select from {schema}.schedule_ticks d
                        where d.schedule = v_schedule.name and d.status = 'due')
        and {schema}.find_open_job(v_schedule.name) is null));
    get diagnostics v_changed = row_count;
    v_count := v_count + v_changed;
  end loop;
  return v_count;
end $$;

-- Takes ticks whose jobs are to be submitted, the oldest first; others leave them alone for p_hold_seconds.
-- Fence: the status and the hold. Locks: tick rows; those that others hold are skipped.
create or replace function {schema}.claim_due_ticks(p_limit integer, p_hold_seconds double precision)
returns table (
  schedule text, tick_at timestamptz, job_type text, parameters jsonb, submission_key text, attempt integer,
  is_manual boolean, actor text, created_at timestamptz
)
language sql as $$
  with found as (
    select t.schedule, t.tick_at from {schema}.schedule_ticks t
    where t.status = 'due' and (t.held_until is null or t.held_until <= {schema}.clock())
    order by t.tick_at, t.schedule limit p_limit for update skip locked
  )
  update {schema}.schedule_ticks t
  set attempt = t.attempt + 1, held_until = {schema}.clock() + p_hold_seconds * interval '1 second'
  from found where t.schedule = found.schedule and t.tick_at = found.tick_at
  returning t.schedule, t.tick_at, t.job_type, t.parameters, t.submission_key, t.attempt, t.is_manual, t.actor,
    t.created_at
$$;

-- Adds a tick that somebody asked for, at this moment, and holds it for the caller; overlap does not count for it.
-- No row: there is no such schedule.
-- Fence: the primary key, with the submission key for a call that is repeated; another tick at the same moment moves
-- this one by a microsecond. Locks: the schedule row.
create or replace function {schema}.add_manual_tick(
  p_name text, p_tick_at timestamptz, p_parameters jsonb, p_submission_key text, p_actor text,
  p_hold_seconds double precision
) returns table (
  schedule text, tick_at timestamptz, job_type text, parameters jsonb, submission_key text, attempt integer,
  is_manual boolean, actor text, created_at timestamptz
)
language plpgsql as $$
#variable_conflict use_column
declare
  v_at timestamptz := p_tick_at;
begin
  perform 1 from {schema}.schedules s where s.name = p_name for update;
  while exists (
    select from {schema}.schedule_ticks t
    where t.schedule = p_name and t.tick_at = v_at and t.submission_key <> p_submission_key
  ) loop
    v_at := v_at + interval '1 microsecond';
  end loop;
  perform {schema}.record_audit('schedule_run', '', p_actor, null, jsonb_build_object('schedule', p_name, 'tick_at', v_at))
  from {schema}.schedules s
  where s.name = p_name and not exists (
    select from {schema}.schedule_ticks t where t.schedule = p_name and t.submission_key = p_submission_key);
  return query
    insert into {schema}.schedule_ticks (
      schedule, tick_at, is_manual, status, job_type, parameters, submission_key, attempt, held_until, actor, created_at)
    select s.name, v_at, true, 'due', s.job_type, p_parameters, p_submission_key, 1,
      {schema}.clock() + p_hold_seconds * interval '1 second', p_actor, {schema}.clock()
    from {schema}.schedules s where s.name = p_name
    on conflict (schedule, tick_at) do update set held_until = excluded.held_until
    returning schedule, tick_at, job_type, parameters, submission_key, attempt, is_manual, actor, created_at;
  if not found and exists (select from {schema}.schedules s where s.name = p_name) then
    perform {schema}.report_left_out('schedule_ticks');
  end if;
end $$;

-- Notes what came of a tick's submission: submitted, failed, or due again after p_delay_seconds.
-- A job that was made counts in any case; the other two, only from the attempt that has the tick.
-- Fence: the status, the key of the submission and the attempt. Locks: the tick row.
create or replace function {schema}.settle_tick(
  p_name text, p_tick_at timestamptz, p_submission_key text, p_attempt integer, p_status text, p_job_id text,
  p_reason text, p_detail text, p_delay_seconds double precision
) returns boolean
language plpgsql as $$
declare
  v_job_type text;
begin
  update {schema}.schedule_ticks t set status = p_status, submitted_job_id = p_job_id, reason = p_reason,
    detail = p_detail, held_until = {schema}.clock() + p_delay_seconds * interval '1 second',
    decided_at = case when p_status <> 'due' then {schema}.clock() end
  where t.schedule = p_name and t.tick_at = p_tick_at and t.submission_key = p_submission_key
    and case when p_status = 'submitted' then t.status <> 'submitted'
        else t.status = 'due' and t.attempt = p_attempt end
  returning t.job_type into v_job_type;
  if found and p_status = 'failed' then
    perform {schema}.note_schedule_event(p_name, v_job_type, 'schedule.failed',
      jsonb_build_object('tick_at', p_tick_at, 'reason', p_reason, 'detail', left(p_detail, 1000)));
  end if;
  return v_job_type is not null;
end $$;

-- Deletes a schedule with what it knows of its ticks; jobs stay. Returns whether it was there.
-- Locks: the schedule row, then its ticks.
create or replace function {schema}.delete_schedule(p_name text, p_actor text) returns boolean
language plpgsql as $$
begin
  perform from {schema}.schedules s where s.name = p_name for update;
  if not found then
    return false;
  end if;
  delete from {schema}.schedules s where s.name = p_name;
  if not found then
    perform {schema}.report_left_out('schedules');
  end if;
  perform {schema}.record_audit('schedule_delete', '', p_actor, null, jsonb_build_object('schedule', p_name));
  return true;
end $$;

-- Deletes a schedule, by nobody in particular: the form that the release before calls.
create or replace function {schema}.delete_schedule(p_name text) returns boolean
language sql as $$
  select {schema}.delete_schedule(p_name, null);
$$;

-- Deletes up to p_limit ticks that were decided about longer ago than p_older_than_seconds; returns how many.
-- Locks: tick rows; those that others hold are skipped.
create or replace function {schema}.prune_ticks(p_older_than_seconds double precision, p_limit integer) returns integer
language plpgsql as $$
declare
  v_count integer;
begin
  delete from {schema}.schedule_ticks t
  where t.ctid = any (array(
    select o.ctid from {schema}.schedule_ticks o
    where o.decided_at < {schema}.clock() - p_older_than_seconds * interval '1 second'
    order by o.decided_at limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;
