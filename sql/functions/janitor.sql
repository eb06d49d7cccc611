-- The janitor's finds: what waits for a message, for a new owner or for an end, and nobody else will give it. Each find
-- is one statement, skips rows that another transaction holds, and is bounded, so that any number of janitors may sweep
-- at once. A find of rows to announce holds them for p_hold_seconds: no other janitor announces them meanwhile, and if
-- this one dies, the next does.

-- Finds tasks that need a message and have none confirmed.
-- They are older than the grace that their planner has for sending it, or were taken back from a process and nobody is
-- about to announce them, or are due for another attempt. Tasks that wait in their stage's line need none:
-- find_idle_windows finds these.
create or replace function {schema}.find_unannounced_tasks(
  p_limit integer, p_grace_seconds double precision, p_hold_seconds double precision
) returns table (
  job_id text, run integer, stage integer, task_id text, queue text, attempt integer, job_type text,
  correlation_id text, tasks_per_message integer
)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  return query
  with found as (
    select t.job_id, t.run, t.task_id from {schema}.tasks t
    where t.status = 'pending' and not t.is_windowed and t.created_at < v_now - p_grace_seconds * interval '1 second'
      and (t.due_at is null or t.due_at <= v_now) and t.parked_at is null
    order by t.created_at limit p_limit for update skip locked
  ), taken_back as (
    select t.job_id, t.run, t.task_id from {schema}.tasks t
    where t.status = 'pending' and not t.is_windowed and t.created_at >= v_now - p_grace_seconds * interval '1 second'
      and t.attempt > 0 and (t.due_at is null or t.due_at <= v_now)
    order by t.created_at limit p_limit for update skip locked
  ), windowed as (
    select w.job_id, w.run, w.task_id from {schema}.find_unannounced_in_windows(p_limit, p_grace_seconds) w
  ), due as (
    select t.job_id, t.run, t.task_id from {schema}.tasks t
    where t.status = 'pending_retry' and t.announced_at is null and t.due_at <= v_now and t.parked_at is null
      and t.held_for is null
      and not ({is_retry_in_line} and exists (
        select from {schema}.stages s
        where s.job_id = t.job_id and s.run = t.run and s.stage = t.stage and t.task_id <= s.window_after
          and s.settings ->> 'limits' is null
      ))
    order by t.due_at limit p_limit for update skip locked
  ), held as (
    update {schema}.tasks t set due_at = v_now + p_hold_seconds * interval '1 second'
    from (select * from found union all select * from taken_back union all select * from windowed) f
    where t.job_id = f.job_id and t.run = f.run and t.task_id = f.task_id
    returning t.job_id, t.run, t.stage, t.task_id, t.queue, t.attempt
  ), retried as (
    select t.job_id, t.run, t.stage, t.task_id, t.queue, t.attempt from {schema}.tasks t
    join due d on t.job_id = d.job_id and t.run = d.run and t.task_id = d.task_id
  )
  select h.job_id, h.run, h.stage, h.task_id, h.queue, h.attempt, j.job_type, j.correlation_id,
    coalesce((s.settings ->> 'tasks_per_message')::integer, 1)
  from (select * from held union all select * from retried) h
  join {schema}.jobs j on j.job_id = h.job_id
  join {schema}.stages s on s.job_id = h.job_id and s.run = h.run and s.stage = h.stage
  order by h.job_id, h.run, h.stage, h.task_id;
end $$;

-- Finds tasks that were taken into their stage's window and have no message confirmed; locked.
-- Their process may be about to send it. So a task without an attempt is found at once only if nobody took any of its
-- stage within the grace; else it is given the grace from now on, and found by a later sweep if it still waits.
-- Locks: task rows; those that another transaction holds are skipped.
create or replace function {schema}.find_unannounced_in_windows(p_limit integer, p_grace_seconds double precision)
returns table (job_id text, run integer, task_id text)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_grace interval := p_grace_seconds * interval '1 second';
begin
  return query
  with waiting as materialized (
    select o.* from (
      select s.job_id, s.run, s.stage, s.window_from, s.window_after, s.window_at
      from {schema}.jobs r
      join {schema}.stages s on s.job_id = r.job_id and s.run = r.run and s.stage = r.stage
      where r.status = 'processing' and r.paused_at is null and s.window_after <> ''
      order by random()
    ) w
    cross join lateral (
      -- adjust_job clears window_at.
      select t.job_id, t.run, t.task_id,
        t.due_at is null and t.attempt = 0 and coalesce(w.window_at > v_now - v_grace, true) as is_new
      from {schema}.tasks t
      where t.job_id = w.job_id and t.run = w.run and t.stage = w.stage and t.status in ({open_tasks})
        and t.task_id >= w.window_from and t.task_id <= w.window_after and t.status = 'pending'
        and (t.due_at is null or t.due_at <= v_now) and t.parked_at is null and t.held_for is null
        and t.announced_at is null
      order by t.task_id limit p_limit for update skip locked
    ) o
    limit p_limit
  ), noted as (
    update {schema}.tasks t set due_at = v_now + v_grace from waiting w
    where w.is_new and t.job_id = w.job_id and t.run = w.run and t.task_id = w.task_id
  )
  select w.job_id, w.run, w.task_id from waiting w where not w.is_new;
end $$;

-- Finds jobs that wait for a step and have no message confirmed for it, or whose step was taken by a process that died.
-- One with a start_at was not announced when it was submitted: it is found as soon as its time has come. A step that a
-- living process takes is left to it; that a process died is an interruption of the step.
create or replace function {schema}.find_unannounced_jobs(
  p_limit integer, p_grace_seconds double precision, p_hold_seconds double precision
) returns table (job_id text, run integer, stage integer, attempt integer, job_type text, correlation_id text)
language plpgsql as $$
begin
  return query
  with found as (
    select j.job_id,
      coalesce({schema}.step_lease_seconds(j.step_lease, j.run, j.stage, j.status, j.attempt) <= 0, false)
        as is_interrupted
    from {schema}.jobs j
    where j.status in ({waiting_jobs}) and j.paused_at is null
      and coalesce(
        {schema}.step_lease_seconds(j.step_lease, j.run, j.stage, j.status, j.attempt) <= 0,
        j.announced_at is null
          and (j.updated_at < {schema}.clock() - p_grace_seconds * interval '1 second' or j.start_at > j.updated_at))
      and (j.due_at is null or j.due_at <= {schema}.clock())
    order by j.updated_at limit p_limit for update skip locked
  )
  update {schema}.jobs j
  set due_at = {schema}.clock() + p_hold_seconds * interval '1 second', announced_at = null,
      step_lease = case when f.is_interrupted then {schema}.end_step_lease(j.job_id, j.step_lease) else j.step_lease end
  from found f where j.job_id = f.job_id
  returning j.job_id, j.run, j.stage, j.attempt, j.job_type, j.correlation_id;
end $$;

-- Finds tasks whose message is lost: it was confirmed before the oldest message of their queue came there.
-- p_before is that arrival minus a grace, since confirmations are this database's time and arrivals the broker's. A
-- message that was scheduled for due_at counts from then. A found row is held as if it had just been announced. It
-- looks at up to ten times p_limit open tasks of one job and a hundred times p_limit of all jobs, taken in random
-- order, since a stage may hold a million tasks that are not lost.
create or replace function {schema}.find_lost_tasks(
  p_queue text, p_limit integer, p_before timestamptz
) returns table (
  job_id text, run integer, stage integer, task_id text, queue text, attempt integer, job_type text,
  correlation_id text, tasks_per_message integer
)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  return query
  with looked_at as materialized (
    select o.*
    from (
      select r.job_id, r.run, r.stage from {schema}.jobs r where r.status = 'processing' and r.paused_at is null
      order by random()
    ) j
    cross join lateral (
      select t.job_id, t.run, t.task_id, t.queue, t.status, t.due_at, t.announced_at, t.parked_at from {schema}.tasks t
      where t.job_id = j.job_id and t.run = j.run and t.stage = j.stage
        and t.status in ({open_tasks})
      order by t.task_id limit p_limit * 10
    ) o
    limit p_limit * 100
  ), lost as materialized (
    select t.job_id, t.run, t.task_id
    from (
      select o.job_id, o.run, o.task_id from looked_at o
      where o.queue = p_queue and o.status in ({announced_tasks}) and o.parked_at is null
        and greatest(o.announced_at, o.due_at) < p_before and o.announced_at is not null
      limit p_limit
    ) s
    join {schema}.tasks t on t.job_id = s.job_id and t.run = s.run and t.task_id = s.task_id
    where t.status in ({announced_tasks}) and t.announced_at is not null and t.parked_at is null
      and greatest(t.announced_at, t.due_at) < p_before
    for update of t skip locked
  ), held as (
    update {schema}.tasks t set announced_at = v_now
    from lost l where t.job_id = l.job_id and t.run = l.run and t.task_id = l.task_id
    returning t.job_id, t.run, t.stage, t.task_id, t.queue, t.attempt
  )
  select h.job_id, h.run, h.stage, h.task_id, h.queue, h.attempt, j.job_type, j.correlation_id,
    coalesce((s.settings ->> 'tasks_per_message')::integer, 1)
  from held h
  join {schema}.jobs j on j.job_id = h.job_id
  join {schema}.stages s on s.job_id = h.job_id and s.run = h.run and s.stage = h.stage
  order by h.job_id, h.run, h.stage, h.task_id;
end $$;

-- Finds jobs whose step's message is lost, as find_lost_tasks does for tasks.
create or replace function {schema}.find_lost_jobs(p_limit integer, p_before timestamptz)
returns table (job_id text, run integer, stage integer, attempt integer, job_type text, correlation_id text)
language sql volatile as $$
  with lost as (
    select j.job_id from {schema}.jobs j
    where j.status in ({waiting_jobs}) and j.paused_at is null and j.announced_at is not null
      and greatest(j.announced_at, j.due_at) < p_before
      and {schema}.step_lease_seconds(j.step_lease, j.run, j.stage, j.status, j.attempt) is null
    order by j.updated_at limit p_limit for update skip locked
  )
  update {schema}.jobs j set announced_at = {schema}.clock()
  from lost l where j.job_id = l.job_id
  returning j.job_id, j.run, j.stage, j.attempt, j.job_type, j.correlation_id
$$;

-- Finds stages with tasks whose lease has run out.
create or replace function {schema}.find_expired_stages(p_limit integer)
returns table (job_id text, run integer, stage integer)
language sql stable as $$
  select distinct e.job_id, e.run, e.stage from (
    select t.job_id, t.run, t.stage from {schema}.tasks t
    where t.status = 'processing' and t.lease_expires_at <= {schema}.clock()
    order by t.lease_expires_at limit p_limit
  ) e
$$;

-- Finds jobs that run though no task of their stage is open, and jobs that failed or were cancelled within the last hour
-- though a task of their stage waits: its row was held by another transaction when they ended.
-- It looks at one open task per job and never joins all of them: that is the reason for the limit within.
create or replace function {schema}.find_stalled_jobs(p_limit integer, p_grace_seconds double precision)
returns table (job_id text, run integer, stage integer)
language sql stable set enable_seqscan = off as $$
  (
    select j.job_id, j.run, j.stage from {schema}.jobs j
    where j.status in ({running_jobs})
      and j.updated_at < {schema}.clock() - p_grace_seconds * interval '1 second'
      and (
        select t.task_id from {schema}.tasks t
        where t.job_id = j.job_id and t.run = j.run and t.stage = j.stage
          and t.status in ({open_tasks})
        order by t.task_id limit 1
      ) is null
    order by j.updated_at limit p_limit
  )
  union all
  (
    select j.job_id, j.run, j.stage from {schema}.jobs j
    where j.status in ({aborted_jobs})
      and j.finished_at > {schema}.clock() - interval '1 hour'
      and j.finished_at < {schema}.clock() - p_grace_seconds * interval '1 second'
      and (
        select t.status from {schema}.tasks t
        where t.job_id = j.job_id and t.run = j.run and t.stage = j.stage
          and t.status in ({open_tasks})
        order by t.task_id limit 1
      ) in ({waiting_tasks})
    limit p_limit
  )
$$;

-- Decides again what a stage's last task decides, and returns whether the job moved.
-- Locks: the stage, then the job row.
create or replace function {schema}.resume_stalled_job(p_job_id text, p_run integer, p_stage integer) returns boolean
language plpgsql as $$
begin
  if {schema}.check_stage(p_job_id, p_run, p_stage, false, null) then
    perform {schema}.record_event(p_job_id, p_run, p_stage, null, 'janitor_closed_stage', null);
    return true;
  end if;
  if {schema}.advance_job_stage(p_job_id, p_run, p_stage) is not null then
    perform {schema}.record_event(p_job_id, p_run, p_stage, null, 'janitor_advanced_job', null);
    return true;
  end if;
  return false;
end $$;

-- Finds jobs that have been cancelling for longer than their grace.
create or replace function {schema}.find_overdue_cancels(p_limit integer)
returns table (job_id text, run integer, stage integer)
language sql stable as $$
  select j.job_id, j.run, j.stage from {schema}.jobs j
  where j.status = 'cancelling' and {cancel_deadline} <= {schema}.clock()
  order by j.updated_at limit p_limit
$$;

-- Brings times back that are later than they can be, since the database's clock was ahead when they were written: leases
-- of tasks and of steps, when a retry, or a job without a message, is due, what limits count, and when a message came to
-- a paused job. Each begins anew from now: what a living process has is renewed, and the rest is found as usual. Else a
-- clock that was five hours ahead costs five hours.
-- Returns how many rows; it looks at p_limit of each kind, the latest times. A minute is left for clocks that differ, as those of two servers do.
-- Locks: those of limits, then rows of tasks, then of jobs; rows that another transaction holds are skipped.
create or replace function {schema}.bring_times_back(p_limit integer) returns integer
language plpgsql set enable_seqscan = off set enable_sort = off set enable_bitmapscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_late timestamptz := v_now + interval '1 minute';
  v_limits integer := {schema}.bring_limits_back(p_limit);
  v_leases integer;
  v_retries integer;
  v_parked integer;
  v_jobs integer;
begin
  update {schema}.tasks t
  set lease_expires_at = v_now + l.seconds * interval '1 second', started_at = least(t.started_at, v_now)
  from (
    select h.place, f.seconds from (
      select o.place, (s.settings ->> 'lease_seconds')::double precision as seconds from (
        select n.ctid as place, n.job_id, n.run, n.stage, n.lease_expires_at from {schema}.tasks n
        where n.status = 'processing' and n.lease_expires_at > v_late
        order by n.lease_expires_at desc limit p_limit
      ) o
      join {schema}.stages s on s.job_id = o.job_id and s.run = o.run and s.stage = o.stage
      where o.lease_expires_at > v_late + (s.settings ->> 'lease_seconds')::double precision * interval '1 second'
      offset 0
    ) f
    cross join lateral (
      select n.ctid as place from {schema}.tasks n
      where n.ctid = f.place and n.status = 'processing' and n.lease_expires_at > v_late for update skip locked
    ) h
  ) l
  where t.ctid = l.place;
  get diagnostics v_leases = row_count;

  update {schema}.tasks t
  set due_at = v_now + greatest(t.due_at - t.started_at, interval '0'), started_at = v_now,
      announced_at = least(t.announced_at, v_now)
  from (
    select h.place from (
      select o.place from (
        select n.ctid as place, n.started_at from {schema}.tasks n
        where n.status = 'pending_retry' and n.due_at > v_late
        order by n.due_at desc limit p_limit
      ) o
      where o.started_at > v_late offset 0
    ) f
    cross join lateral (
      select n.ctid as place from {schema}.tasks n
      where n.ctid = f.place and n.status = 'pending_retry' and n.started_at > v_late for update skip locked
    ) h
  ) l
  where t.ctid = l.place;
  get diagnostics v_retries = row_count;

  update {schema}.tasks t set parked_at = v_now
  where t.ctid = any (array(
    -- One that is about to be announced is held for some minutes.
    select n.ctid from {schema}.tasks n where n.parked_at > v_late + interval '10 minutes'
    order by n.parked_at desc limit p_limit for update skip locked
  ));
  get diagnostics v_parked = row_count;

  update {schema}.jobs j
  set updated_at = least(j.updated_at, v_now), announced_at = least(j.announced_at, v_now),
      due_at = case when j.due_at > v_now and j.start_at is null and j.updated_at > v_late
        then v_now + greatest(j.due_at - j.updated_at, interval '0') else j.due_at end,
      step_lease = case when (j.step_lease ->> 'expires_at')::timestamptz > v_late
        then j.step_lease || jsonb_build_object('expires_at', v_now + interval '10 seconds') else j.step_lease end
  from (
    select n.ctid as place from {schema}.jobs n
    where n.status in ({waiting_jobs})
      and (n.updated_at > v_late or (n.step_lease ->> 'expires_at')::timestamptz > v_late)
    order by n.updated_at desc limit p_limit for update skip locked
  ) o
  where j.ctid = o.place;
  get diagnostics v_jobs = row_count;
  return v_limits + v_leases + v_retries + v_parked + v_jobs;
end $$;
