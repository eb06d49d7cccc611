-- Claims: an attempt gets its lease. One task takes a short way (claim_task), all others claim_tasks.

-- Leases tasks to the caller and returns one row per id, the claimed ones first, each with its outcome.
-- Outcome: claimed; duplicate (leased, or ended); not_due (to be retried later); paused (the job is: the task is
-- parked, and announced again after the pause); held (a limit of its stage has no place: it waits without a message);
-- closed (its stage or job does not run); expired (a deadline has passed, so nothing is begun: the caller lets
-- enforce_deadlines end it); missing. The commit of a claim is not waited for: one that a crash undoes is fenced by its
-- random lease and is claimed again. The same call once more, after the answer was lost with its connection, finds its
-- tasks claimed under its lease. The commit of parking is waited for, since the message is gone when this returns.
-- So is that of a claim under limits, which may be exceeded if it is undone.
-- Fence: the status.
-- Locks: those of the stage's limits; task rows by id (waited for: an announcer may hold them for a moment); in a stage
-- or job that was ended or is being cancelled, the stage's lock instead, and only if one of these tasks still waits.
create or replace function {schema}.claim_tasks(
  p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_lease_id uuid, p_owner text
) returns table (
  task_id text, outcome text, attempt integer, interruptions integer, task_type text, task_index integer, name text,
  parameters jsonb, wait_seconds double precision
)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_open boolean;
  v_is_dead boolean;
  v_is_overdue boolean;
  v_is_queue_overdue boolean;
  v_paused boolean;
  v_places tid[];
  v_claimed text[] := array[]::text[];
  v_lease_seconds double precision;
  v_settings jsonb;
  v_limit record;
begin
  if cardinality(p_task_ids) = 1 then
    return query select c.* from {schema}.claim_task(p_job_id, p_run, p_stage, p_task_ids[1], p_lease_id, p_owner) c;
    if found then
      return;
    end if;
  end if;
  select {stage_is_open},
         j.status in ({stopped_jobs}) or s.status in ({stopped_stages}),
         j.paused_at is not null, (s.settings ->> 'lease_seconds')::double precision,
         coalesce(least(j.deadline_at, s.deadline_at) <= v_now, false), coalesce(s.queue_deadline_at <= v_now, false),
         case when s.settings ->> 'limits' is not null then s.settings end
  into v_open, v_is_dead, v_paused, v_lease_seconds, v_is_overdue, v_is_queue_overdue, v_settings
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;

  if v_open and v_paused then
    select array_agg(w.place) into v_places from {schema}.ids_in_order(p_task_ids) as named
    cross join lateral (
      select t.ctid as place from {schema}.tasks t
      where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
        and t.status in ({waiting_tasks})
      for update
    ) w;
    update {schema}.tasks t set parked_at = v_now where t.ctid = any (v_places);
  elsif v_open and not v_is_overdue then
    if v_settings is null then
      perform set_config('synchronous_commit', 'off', true);
    else
      select l.room, l.name into v_limit
      from {schema}.room_in_limits(v_settings, p_job_id, p_run, p_task_ids, v_now) l;
    end if;
    select coalesce(array_agg(named.id), array[]::text[]), array_agg(w.place) into v_claimed, v_places
    from {schema}.ids_in_order(p_task_ids) as named
    cross join lateral (
      select t.ctid as place from {schema}.tasks t
      where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
        and (t.status in ({ready_tasks}) or (t.status = 'pending_retry' and t.due_at <= v_now))
        and not (v_is_queue_overdue and t.attempt = 0)
      for update
    ) w;
    if v_settings is not null then
      if v_limit.room < cardinality(v_claimed) then
        v_limit.room := greatest(v_limit.room, 0);
        perform {schema}.hold_back_tasks(p_job_id, p_run, p_stage, v_claimed[v_limit.room + 1:],
          v_places[v_limit.room + 1:], v_limit.name);
        v_claimed := v_claimed[:v_limit.room];
        v_places := v_places[:v_limit.room];
      end if;
      perform {schema}.take_places(v_settings, p_job_id, p_run, p_stage, v_claimed, v_now);
    end if;
    -- What is claimed is answered from the update: a join would look for each row among all ids.
    return query
    update {schema}.tasks t
    set status = 'processing', attempt = t.attempt + 1, lease_id = p_lease_id, lease_owner = p_owner,
        lease_expires_at = v_now + v_lease_seconds * interval '1 second',
        due_at = null, parked_at = null, started_at = v_now, timed_out_at = null, held_for = null
    where t.ctid = any (v_places)
    returning t.task_id, 'claimed'::text, t.attempt, t.interruptions, t.task_type, t.task_index, t.name, t.parameters,
      0::double precision;
    if {schema}.has_waited() then
      perform {schema}.begin_leases_now(v_claimed, array_fill(p_lease_id, array[cardinality(v_claimed)]), true);
    end if;
    if cardinality(v_claimed) = cardinality(p_task_ids) then
      return;
    end if;
  elsif v_is_dead and exists (
    select 1 from unnest(p_task_ids) as named(id)
    cross join lateral (
      select from {schema}.tasks t
      where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
        and t.status in ({waiting_tasks})
      offset 0
    ) w
  ) then
    -- Another transaction had locked such a row when the rest was cancelled. Without one the stage is not read: most
    -- messages of a cancelled job name rows that have ended.
    perform {schema}.check_stage(p_job_id, p_run, p_stage, false, null);
  end if;

  return query
  select asked.id,
    case
      when t.task_id is null then 'missing'
      when not v_open then 'closed'
      when t.status = 'processing' and t.lease_id = p_lease_id then 'claimed'
      when t.held_for is not null and t.announced_at is null and t.status in ({waiting_tasks}) then 'held'
      when v_paused and t.status in ({waiting_tasks}) then 'paused'
      when t.status in ({waiting_tasks})
        and (v_is_overdue or (v_is_queue_overdue and t.attempt = 0)) then 'expired'
      when t.status = 'pending_retry' then 'not_due'
      else 'duplicate'
    end,
    t.attempt, t.interruptions, t.task_type, t.task_index, t.name, t.parameters,
    greatest(extract(epoch from t.due_at - v_now), 0)::double precision
  from unnest(p_task_ids) with ordinality as asked(id, place)
  left join lateral (
    select x.* from {schema}.tasks x
    where x.job_id = p_job_id and x.run = p_run and x.task_id = asked.id and x.stage = p_stage offset 0
  ) t on true
  where asked.id <> all (v_claimed)
  order by asked.place;
end $$;

-- Leases one task that can be claimed, in one statement whose plan is made once.
-- Returns no row, with nothing done, in every other case: claim_tasks finds out which.
-- Fence: the status of task, stage and job. Locks: the task row.
create or replace function {schema}.claim_task(
  p_job_id text, p_run integer, p_stage integer, p_task_id text, p_lease_id uuid, p_owner text
) returns table (
  task_id text, outcome text, attempt integer, interruptions integer, task_type text, task_index integer, name text,
  parameters jsonb, wait_seconds double precision
)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  return query
  update {schema}.tasks t
  set status = 'processing', attempt = t.attempt + 1, lease_id = p_lease_id, lease_owner = p_owner,
      lease_expires_at = v_now + (s.settings ->> 'lease_seconds')::double precision * interval '1 second',
      due_at = null, parked_at = null, started_at = v_now, timed_out_at = null
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and {stage_is_open} and j.paused_at is null
    and (least(j.deadline_at, s.deadline_at) <= v_now) is not true
    and t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_id and t.stage = p_stage
    and (t.status in ({ready_tasks}) or (t.status = 'pending_retry' and t.due_at <= v_now))
    and not (t.attempt = 0 and (s.queue_deadline_at <= v_now) is true) and not t.is_limited
  returning t.task_id, 'claimed'::text, t.attempt, t.interruptions, t.task_type, t.task_index, t.name, t.parameters,
    0::double precision;
  if found then
    perform set_config('synchronous_commit', 'off', true);
    if {schema}.has_waited() then
      perform {schema}.begin_leases_now(array[p_task_id], array[p_lease_id], true);
    end if;
  end if;
end $$;

-- Leases tasks that wait in line to a process that has just ended some of their stage: no message names them.
-- At most p_limit, of these types, in order, and none that was tried before. Returns one row for each, fewer if others
-- hold them; none of a stage with limits, max_parallel,
-- or several tasks per message.
-- The rows are locked before the window is looked at: take_next_tasks, which gives them messages, locks them as well.
-- Fence: the status of task, stage and job; the window. Locks: task rows; those that another transaction holds are
-- skipped, so it may be called under a stage's lock.
create or replace function {schema}.claim_tasks_in_line(
  p_job_id text, p_run integer, p_stage integer, p_task_types text[], p_limit integer, p_lease_id uuid, p_owner text
) returns table (
  task_id text, attempt integer, interruptions integer, task_type text, task_index integer, name text, parameters jsonb
)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_sort = off
set enable_bitmapscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_places tid[];
begin
  select array_agg(n.place) into v_places from (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ({open_tasks})
      and t.task_id > (
        select s.window_after from {schema}.stages s
        where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and {goes_on}
      )
      and {is_in_line} and t.attempt = 0 and t.task_type = any (p_task_types)
    order by t.task_id limit p_limit for update skip locked
  ) n;
  if v_places is null then
    return;
  end if;
  return query
  update {schema}.tasks t
  set status = 'processing', attempt = t.attempt + 1, lease_id = p_lease_id, lease_owner = p_owner,
      lease_expires_at = v_now + (s.settings ->> 'lease_seconds')::double precision * interval '1 second',
      due_at = null, started_at = v_now, timed_out_at = null
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and {stage_is_open} and j.paused_at is null
    and (least(j.deadline_at, s.deadline_at, s.queue_deadline_at) <= v_now) is not true
    and {goes_on} and t.ctid = any (v_places) and t.task_id > s.window_after
  returning t.task_id, t.attempt, t.interruptions, t.task_type, t.task_index, t.name, t.parameters;
  if {schema}.has_waited() then
    perform {schema}.begin_leases_now(array_agg(o.task_id), array_agg(p_lease_id), true)
    from {schema}.tasks_of_lease(p_job_id, p_run, p_stage, p_lease_id) o;
  end if;
end $$;
