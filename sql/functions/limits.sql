-- Limits: how many tasks run at once, and how many begin in a time, over all stages that name the same limit.
-- A task of such a stage has a place in each of its limits from its claim until its row leaves `processing`, in every
-- way out: the place is freed by a trigger, in the same transaction. So a place is lost or leaked as little as a
-- lease is. What is announced has a place kept for it for a while, so that no more is announced than may run; a claim is
-- the wall. docs/adr/0035-limits-are-places-in-postgresql.md has the reasons.

-- The names of a stage's limits, from its settings; null if it has none.
create or replace function {schema}.limit_names(p_settings jsonb) returns text[]
language sql immutable as $$
  select array_agg(l.value ->> 'name')
  from jsonb_array_elements(case when p_settings ->> 'limits' is not null then p_settings -> 'limits' end) l
$$;

-- Writes the rows of a stage's limits that are not there, with the numbers that the stage declares.
-- A row that is there takes them if no operator chose its numbers, and it has none or p_is_newest: the stage was planned
-- just now. Locks: the limits' rows, then those of their starts.
create or replace function {schema}.ensure_limits(p_settings jsonb, p_is_newest boolean) returns void
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_changed record;
begin
  insert into {schema}.limits as l (name, at_once, rate_count, rate_seconds, created_at, used_at)
  select d.value ->> 'name', (d.value ->> 'at_once')::integer, (d.value -> 'rate' ->> 'count')::integer,
    (d.value -> 'rate' ->> 'seconds')::double precision, v_now, v_now
  from jsonb_array_elements(p_settings -> 'limits') d order by 1
  on conflict (name) do nothing;
  for v_changed in
    update {schema}.limits l
    set at_once = (d.value ->> 'at_once')::integer, rate_count = (d.value -> 'rate' ->> 'count')::integer,
        rate_seconds = (d.value -> 'rate' ->> 'seconds')::double precision
    from jsonb_array_elements(p_settings -> 'limits') d
    where l.name = d.value ->> 'name' and not l.is_edited
      and (p_is_newest or not {schema}.has_numbers(l.at_once, l.rate_count))
      and {schema}.has_numbers((d.value ->> 'at_once')::integer, (d.value -> 'rate' ->> 'count')::integer)
      and (l.at_once, l.rate_count, l.rate_seconds) is distinct from ((d.value ->> 'at_once')::integer,
        (d.value -> 'rate' ->> 'count')::integer, (d.value -> 'rate' ->> 'seconds')::double precision)
    returning l.name, l.rate_seconds
  loop
    if v_changed.rate_seconds is not null then
      perform {schema}.move_starts(v_changed.name, v_changed.rate_seconds);
    end if;
  end loop;
  update {schema}.limits l set used_at = v_now
  where l.name = any ({schema}.limit_names(p_settings)) and l.used_at < v_now - interval '10 minutes';
end $$;

-- Whether a limit has numbers; a declaration may only name it.
create or replace function {schema}.has_numbers(p_at_once integer, p_rate_count integer) returns boolean
language sql immutable as $$
  select p_at_once is not null or p_rate_count is not null
$$;

-- How limits are used, one row each: places that are held, places that are kept for announced tasks, how many tasks
-- began in the last period, and how many more may begin now. Those of p_own_ids, of one job, are not counted.
-- room is 0 or less where none may, and null for a limit without numbers. frees_at: when a rate that is used up lets another
-- begin. next_at: the same, if only the rate is in the way and nothing is about to begin, which would look again.
create or replace function {schema}.look_at_limits(
  p_names text[], p_job_id text, p_run integer, p_own_ids text[], p_now timestamptz
) returns table (
  name text, at_once integer, rate_count integer, rate_seconds double precision, held integer, reserved integer,
  begun integer, room integer, next_at timestamptz, frees_at timestamptz
)
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
begin
  return query
  select u.name, u.at_once, u.rate_count, u.rate_seconds, u.held, u.reserved, u.begun,
    least(u.at_once - u.held - u.reserved, u.rate_count - u.begun - u.reserved),
    case when u.reserved = 0 and (u.held < u.at_once) is not false then u.frees_at end, u.frees_at
  from (
    select l.name, l.at_once, l.rate_count, l.rate_seconds, p.held, p.reserved, b.begun,
      case when l.rate_count > 0 and l.rate_count <= b.begun then
        b.freeing_ends_at + l.rate_seconds * interval '1 second' + interval '1 millisecond'
      end as frees_at
    from unnest(p_names) as asked(name)
    join {schema}.limits l on l.name = asked.name
    cross join lateral (
      select count(*) filter (where s.has_begun)::integer as held,
        count(*) filter (where not s.has_begun)::integer as reserved
      from {schema}.limit_places s
      where s.limit_name = l.name and (s.ends_at is null or s.ends_at > p_now)
        and (s.job_id = p_job_id and s.run = p_run and s.task_id = any (p_own_ids)) is not true
    ) p
    cross join lateral (
      -- A rate that was lowered may have to wait for more than its oldest starts.
      select coalesce(sum(e.count), 0)::integer as begun,
        min(e.ends_at) filter (where e.later < l.rate_count) as freeing_ends_at
      from (
        select t.ends_at, t.count, sum(t.count) over (order by t.ends_at desc) - t.count as later
        from {schema}.limit_starts t
        where l.rate_count is not null and t.limit_name = l.name
          and t.ends_at > p_now - l.rate_seconds * interval '1 second'
      ) e
    ) b
  ) u;
end $$;

-- How many tasks of a stage its limits let begin now, and which of them lets the fewest.
-- room is null where none of them has numbers. Locks: the limits', which stay locked.
create or replace function {schema}.room_in_limits(
  p_settings jsonb, p_job_id text, p_run integer, p_own_ids text[], p_now timestamptz
) returns table (room integer, name text, next_at timestamptz)
language plpgsql as $$
declare
  v_names text[] := {schema}.limit_names(p_settings);
begin
  perform {schema}.lock_limits(v_names);
  if (
    select count(*) from {schema}.limits l
    where l.name = any (v_names) and (l.is_edited or {schema}.has_numbers(l.at_once, l.rate_count))
  ) < cardinality(v_names) then
    perform {schema}.ensure_limits(p_settings, false);
  end if;
  return query
  select l.room, l.name, l.next_at from {schema}.look_at_limits(v_names, p_job_id, p_run, p_own_ids, p_now) l
  order by l.room nulls last, l.next_at desc nulls first limit 1;
end $$;

-- When the twentieth of a rate's period ends that this moment is in.
create or replace function {schema}.end_of_start(p_at timestamptz, p_rate_seconds double precision)
returns timestamptz
language sql immutable as $$
  select greatest(p_at, to_timestamp(
    ceil(extract(epoch from p_at) / (p_rate_seconds / 20)::numeric) * (p_rate_seconds / 20)::numeric))
$$;

-- Counts the starts of a limit whose period has become shorter as of now, where they would count for longer than that: each
-- is counted by the end of a twentieth of the period that it was in. So none is forgotten, and a new rate counts at once.
-- Locks: the rows of the starts.
create or replace function {schema}.move_starts(p_name text, p_rate_seconds double precision) returns void
language plpgsql as $$
declare
  v_ends_at timestamptz := {schema}.end_of_start({schema}.clock(), p_rate_seconds);
begin
  with moved as (
    delete from {schema}.limit_starts e where e.limit_name = p_name and e.ends_at > v_ends_at returning e.count
  )
  insert into {schema}.limit_starts as e (limit_name, ends_at, count)
  select p_name, v_ends_at, sum(m.count)::integer from moved m having count(*) > 0
  on conflict (limit_name, ends_at) do update set count = e.count + excluded.count;
end $$;

-- Lets tasks that were scheduled for the time at which a limit's old rate had room wait for their turn again, ahead of
-- what is in line; their messages find that they run, have ended, or wait still.
-- Locks: the limit's is held by the caller; task rows by id.
create or replace function {schema}.forget_scheduled_starts(p_name text) returns void
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_places tid[];
begin
  select array_agg(w.place) into v_places from (
    select p.job_id, p.run, p.task_id from {schema}.limit_places p
    where p.limit_name = p_name and not p.has_begun order by 1, 2, 3
  ) kept
  cross join lateral (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = kept.job_id and t.run = kept.run and t.task_id = kept.task_id and t.status = 'pending_retry'
      and t.held_for = p_name and t.due_at > v_now and t.parked_at is null
    for update
  ) w;
  if v_places is null then
    return;
  end if;
  delete from {schema}.limit_places s using {schema}.tasks t
  where t.ctid = any (v_places) and s.job_id = t.job_id and s.run = t.run and s.task_id = t.task_id
    and not s.has_begun;
  update {schema}.tasks t set due_at = v_now, announced_at = null where t.ctid = any (v_places);
end $$;

-- Gives claimed tasks their places, and counts their starts.
-- A start is counted in the twentieth of the period that it is in, by that time's end: so never too early.
-- Locks: the limits' are held by the caller.
create or replace function {schema}.take_places(
  p_settings jsonb, p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_now timestamptz
) returns void
language plpgsql as $$
declare
  v_names text[] := {schema}.limit_names(p_settings);
  v_count integer;
begin
  insert into {schema}.limit_places as s (job_id, run, task_id, limit_name, stage, has_begun, ends_at)
  select p_job_id, p_run, t.id, n.name, p_stage, true, null
  from unnest(p_task_ids) as t(id) cross join unnest(v_names) as n(name)
  on conflict (job_id, run, task_id, limit_name) do update set has_begun = true, ends_at = null;
  get diagnostics v_count = row_count;
  if v_count < cardinality(p_task_ids) * cardinality(v_names) then
    perform {schema}.report_left_out('limit_places');
  end if;
  delete from {schema}.limit_starts e using {schema}.limits l
  where l.name = any (v_names) and e.limit_name = l.name
    and e.ends_at <= p_now - l.rate_seconds * interval '1 second';
  insert into {schema}.limit_starts as e (limit_name, ends_at, count)
  select l.name, {schema}.end_of_start(p_now, l.rate_seconds), cardinality(p_task_ids)
  from {schema}.limits l where l.name = any (v_names) and l.rate_count is not null
  on conflict (limit_name, ends_at) do update set count = e.count + excluded.count;
end $$;

-- Takes the starts of claimed tasks back that no handler began: their rates are for those that do. One that was counted
-- under another period stays.
-- Locks: the limits' and the rows at these places are held by the caller.
create or replace function {schema}.take_back_starts(p_names text[], p_places tid[]) returns void
language plpgsql set enable_seqscan = off as $$
begin
  update {schema}.limit_starts e set count = e.count - c.count
  from (
    select l.name, {schema}.end_of_start(t.started_at, l.rate_seconds) as ends_at, count(*)::integer as count
    from {schema}.limits l cross join {schema}.tasks t
    where l.name = any (p_names) and l.rate_count is not null and t.ctid = any (p_places)
    group by 1, 2
  ) c
  where e.limit_name = c.name and e.ends_at = c.ends_at and e.count >= c.count;
end $$;

-- Puts tasks whose message came while a limit had no place back to those that wait, without a message.
-- They are pending, or, if another attempt was due, still pending_retry. Their stage waits for its turn.
-- Locks: the limits' and the rows at these places are held by the caller.
create or replace function {schema}.hold_back_tasks(
  p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_places tid[], p_limit_name text
) returns void
language plpgsql set enable_seqscan = off as $$
begin
  update {schema}.tasks t
  set held_for = p_limit_name, announced_at = null, parked_at = null,
      status = case t.status when 'queued' then 'pending' else t.status end,
      due_at = case t.status when 'pending_retry' then t.due_at end
  where t.ctid = any (p_places);
  delete from {schema}.limit_places s
  where s.job_id = p_job_id and s.run = p_run and s.task_id = any (p_task_ids) and not s.has_begun;
  perform {schema}.wait_for_limit(p_job_id, p_run, p_stage, p_limit_name);
end $$;

-- Lets a stage wait for a limit: behind those that were served less, and not before those that wait already.
create or replace function {schema}.wait_for_limit(p_job_id text, p_run integer, p_stage integer, p_limit_name text)
returns void
language sql as $$
  insert into {schema}.limit_waiters as w (job_id, run, stage, limit_name, turn)
  select p_job_id, p_run, p_stage, l.name, l.turn from {schema}.limits l where l.name = p_limit_name
  on conflict (job_id, run, stage) do update set limit_name = excluded.limit_name, turn = excluded.turn
  where w.limit_name <> excluded.limit_name
$$;

-- Frees the places of a task whose attempt is over. Those that keep_places has given an end stay until then.
create or replace function {schema}.free_places() returns trigger
language plpgsql as $$
begin
  delete from {schema}.limit_places s
  where s.job_id = old.job_id and s.run = old.run and s.task_id = old.task_id and s.has_begun and s.ends_at is null;
  return null;
end $$;

create or replace trigger free_places after update of status on {schema}.tasks for each row
when (old.is_limited and old.status = 'processing' and new.status <> 'processing')
execute function {schema}.free_places();

-- Keeps the places of running tasks that are about to be cut off until their leases would have ended: their handlers
-- learn of it only at a heartbeat, and may still be at what the limit protects.
-- Locks: the rows at these places are held by the caller.
create or replace function {schema}.keep_places(p_places tid[]) returns void
language plpgsql set enable_seqscan = off as $$
begin
  update {schema}.limit_places s set ends_at = t.lease_expires_at
  from {schema}.tasks t
  where t.ctid = any (p_places) and t.is_limited and t.status = 'processing'
    and s.job_id = t.job_id and s.run = t.run and s.task_id = t.task_id and s.has_begun;
end $$;

-- Frees the places that are kept for announced tasks of a job which begins no more: others need not wait until their time
-- is over. Rows that another transaction holds are left, which may wait for the job's own.
create or replace function {schema}.drop_kept_places(p_job_id text, p_run integer) returns void
language sql as $$
  delete from {schema}.limit_places p
  where p.ctid in (
    select o.ctid from {schema}.limit_places o
    where o.job_id = p_job_id and o.run = p_run and not o.has_begun and o.ends_at is not null
    for update skip locked
  )
$$;

-- Takes the next tasks of a stage with limits, as many as these let begin, and keeps places for them.
-- Those that were held back come first, then those in line; take_next_tasks has the rules of its window. Where only a
-- rate is in the way, one task is taken for the time at which it lets the next begin, at most a minute from now: its
-- message is to be scheduled (wait_seconds), and the process that gets it takes the next ones.
-- Fence: the stage is open, and its job is not paused. Locks: the window's, the limits', task rows by id, then the stage
-- row.
create or replace function {schema}.take_limited_tasks(
  p_job_id text, p_run integer, p_stage integer
) returns table (
  job_id text, run integer, stage integer, task_id text, queue text, attempt integer, job_type text,
  correlation_id text, tasks_per_message integer, mark_each integer, wait_seconds double precision
)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
#variable_conflict use_column
declare
  v_now timestamptz := {schema}.clock();
  v_window record;
  v_limit record;
  v_again record;
  v_next record;
  v_look record;
  v_per_message integer;
  v_room integer;
  v_wait double precision := 0;
  v_ids text[];
begin
  perform {schema}.lock_window(p_job_id, p_run, p_stage);
  select s.window_after, s.window_from, s.window_size, s.window_open, s.window_at, s.settings, j.job_type,
    j.correlation_id, {schema}.window_weight(coalesce(j.priority, j.definition ->> 'priority')) as weight
  into v_window
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.window_after is not null
    and {stage_is_open} and j.paused_at is null and s.settings ->> 'limits' is not null;
  if not found then
    perform {schema}.pass_over_waiter(p_job_id, p_run, p_stage);
    return;
  end if;
  if v_window.settings ->> 'max_parallel' is null then
    perform set_config('synchronous_commit', 'off', true);
  end if;
  v_per_message := coalesce((v_window.settings ->> 'tasks_per_message')::integer, 1);
  select l.room, l.name, l.next_at into v_limit
  from {schema}.room_in_limits(v_window.settings, p_job_id, p_run, null, v_now) l;
  v_room := coalesce(v_limit.room, 2147483647);
  if v_room <= 0 and v_limit.next_at < v_now + interval '1 minute' then
    v_room := 1;
    v_wait := greatest(extract(epoch from v_limit.next_at - v_now), 0);
  end if;
  perform {schema}.wait_for_limit(p_job_id, p_run, p_stage, v_limit.name);
  if v_room <= 0 then
    return;
  end if;

  select array_agg(h.task_id) as ids, array_agg(h.queue) as queues, array_agg(h.attempt) as attempts,
    array_agg(h.place) as places, count(*)::integer as count
  into v_again
  from (
    select t.task_id, t.queue, t.attempt, t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ({open_tasks})
      and t.task_id >= v_window.window_from and t.task_id <= v_window.window_after and t.held_for is not null
      and t.parked_at is null and (t.status = 'pending' or (t.status = 'pending_retry' and t.due_at <= v_now))
    order by t.task_id limit v_room for update
  ) h;
  select w.room, w.size, w.open_count, w.first_id into v_look
  from {schema}.look_at_window(p_job_id, p_run, p_stage, v_window.window_from, v_window.window_after,
    v_window.window_size, v_window.window_open, v_window.window_at, v_per_message, v_window.weight,
    coalesce((v_window.settings ->> 'max_parallel')::integer, 2147483647), v_now) w;
  select array_agg(n.task_id) as ids, array_agg(n.queue) as queues, array_agg(n.attempt) as attempts,
    count(*)::integer as count
  into v_next
  from {schema}.tasks_in_line(p_job_id, p_run, p_stage, v_window.window_after,
    greatest(least(v_room - v_again.count, v_look.room), 0)) n;

  v_ids := coalesce(v_again.ids || v_next.ids, array[]::text[]);
  update {schema}.tasks t
  set held_for = case when v_wait > 0 then v_limit.name end,
      status = case when v_wait > 0 then 'pending_retry' else t.status end,
      due_at = case when v_wait > 0 then v_limit.next_at when t.status = 'pending_retry' then t.due_at end
  where t.ctid = any (v_again.places)
    or (v_wait > 0 and t.ctid = any ({schema}.places_of_tasks(p_job_id, p_run, v_ids)));
  if v_next.count > 0 then
    update {schema}.stages s
    set window_after = v_next.ids[v_next.count], window_from = coalesce(v_look.first_id, v_window.window_after),
        window_size = v_look.size, window_at = v_now, window_open = v_look.open_count + v_next.count
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  end if;
  insert into {schema}.limit_places as s (job_id, run, task_id, limit_name, stage, has_begun, ends_at)
  select p_job_id, p_run, t.id, n.name, p_stage, false, v_now + (v_wait + 30) * interval '1 second'
  from unnest(v_ids) as t(id) cross join unnest({schema}.limit_names(v_window.settings)) as n(name)
  on conflict (job_id, run, task_id, limit_name) do update set ends_at = excluded.ends_at where not s.has_begun;
  perform {schema}.serve_in_turn(p_job_id, p_run, p_stage, greatest(cardinality(v_ids), 1) / v_window.weight,
    v_look.room > v_next.count and v_again.count + v_next.count < v_room);
  return query
  select p_job_id, p_run, p_stage, t.id, t.queue, t.attempt, v_window.job_type, v_window.correlation_id, v_per_message,
    1, v_wait
  from unnest(v_ids, v_again.queues || v_next.queues, v_again.attempts || v_next.attempts)
    as t(id, queue, attempt);
end $$;

-- Lets the next stage have its turn: this one's job is paused, and it waits on behind the others; or it is over.
create or replace function {schema}.pass_over_waiter(p_job_id text, p_run integer, p_stage integer) returns void
language plpgsql as $$
begin
  update {schema}.limit_waiters w set turn = w.turn + 1
  where w.job_id = p_job_id and w.run = p_run and w.stage = p_stage and exists (
    select from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and {stage_is_open}
  );
  if not found then
    delete from {schema}.limit_waiters w where w.job_id = p_job_id and w.run = p_run and w.stage = p_stage;
  end if;
end $$;

-- Notes that a stage was served, and whether all its tasks were: then it waits no more.
create or replace function {schema}.serve_in_turn(
  p_job_id text, p_run integer, p_stage integer, p_share double precision, p_is_done boolean
) returns void
language plpgsql as $$
begin
  update {schema}.limits l set turn = w.turn from {schema}.limit_waiters w
  where w.job_id = p_job_id and w.run = p_run and w.stage = p_stage and l.name = w.limit_name and l.turn < w.turn;
  if p_is_done then
    delete from {schema}.limit_waiters w where w.job_id = p_job_id and w.run = p_run and w.stage = p_stage;
  else
    update {schema}.limit_waiters w set turn = w.turn + p_share
    where w.job_id = p_job_id and w.run = p_run and w.stage = p_stage;
  end if;
end $$;

-- Finds stages that wait for limits which have room, or whose rate lets one be scheduled: in turn, up to p_limit of each
-- limit and no more than it has room for.
-- p_names null: of all limits, in random order.
create or replace function {schema}.find_limit_waiters(p_names text[], p_limit integer)
returns table (job_id text, run integer, stage integer)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
  v_now timestamptz := {schema}.clock();
begin
  return query
  select w.job_id, w.run, w.stage
  from (
    select n.name from unnest(coalesce(p_names, array(
      select distinct o.limit_name from {schema}.limit_waiters o
    ))) as n(name)
    order by random() limit 1000
  ) asked
  cross join lateral {schema}.look_at_limits(array[asked.name], null, null, null, v_now) l
  cross join lateral (
    select x.job_id, x.run, x.stage from {schema}.limit_waiters x
    where x.limit_name = asked.name and ((l.room > 0) is not false or l.next_at is not null)
    order by x.turn, x.job_id limit least(p_limit, greatest(l.room, 1))
  ) w;
end $$;

-- Chooses the numbers of a limit, for all stages that name it, from now on; null: any number.
-- Tasks that run are left alone where the new number is lower: none begins until fewer run. The change is in the audit
-- log. Locks: the limit's, then its row, those of its starts, and tasks that were scheduled by its old rate.
create or replace function {schema}.set_limit(
  p_name text, p_at_once integer, p_rate_count integer, p_rate_seconds double precision, p_reason text, p_actor text
) returns void
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_before record;
begin
  perform {schema}.lock_limits(array[p_name]);
  select l.at_once, l.rate_count, l.rate_seconds into v_before from {schema}.limits l where l.name = p_name;
  insert into {schema}.limits as l (
    name, at_once, rate_count, rate_seconds, is_edited, created_at, used_at, edited_at, edited_by, reason
  ) values (p_name, p_at_once, p_rate_count, p_rate_seconds, true, v_now, v_now, v_now, p_actor, p_reason)
  on conflict (name) do update
  set at_once = p_at_once, rate_count = p_rate_count, rate_seconds = p_rate_seconds, is_edited = true,
      edited_at = v_now, edited_by = p_actor, reason = p_reason;
  if not found then
    perform {schema}.report_left_out('limits');
  end if;
  if p_rate_seconds is not null then
    perform {schema}.move_starts(p_name, p_rate_seconds);
  end if;
  perform {schema}.forget_scheduled_starts(p_name);
  perform {schema}.record_audit('set_limit', '', p_actor, p_reason, jsonb_build_object('limit', p_name,
    'from', jsonb_strip_nulls(to_jsonb(v_before)), 'to', jsonb_strip_nulls(jsonb_build_object(
      'at_once', p_at_once, 'rate_count', p_rate_count, 'rate_seconds', p_rate_seconds))));
end $$;

-- Leaves a limit's numbers to its declarations again, and returns whether an operator had chosen any.
-- The next stage that needs it writes those that it declares. The change is in the audit log. Locks: as set_limit.
create or replace function {schema}.forget_limit(p_name text, p_reason text, p_actor text) returns boolean
language plpgsql as $$
declare
  v_before record;
begin
  perform {schema}.lock_limits(array[p_name]);
  select l.at_once, l.rate_count, l.rate_seconds into v_before from {schema}.limits l
  where l.name = p_name and l.is_edited;
  if not found then
    return false;
  end if;
  update {schema}.limits l
  set at_once = null, rate_count = null, rate_seconds = null, is_edited = false, edited_at = null, edited_by = null,
      reason = null
  where l.name = p_name;
  if not found then
    perform {schema}.report_left_out('limits');
  end if;
  perform {schema}.forget_scheduled_starts(p_name);
  perform {schema}.record_audit('forget_limit', '', p_actor, p_reason, jsonb_build_object('limit', p_name,
    'from', jsonb_strip_nulls(to_jsonb(v_before))));
  return true;
end $$;

-- Counts starts that are later than they can be as of now, and frees kept places when their leases would have ended: the
-- database's clock was ahead when they were written. Returns of how many limits, and how many places.
-- Locks: those of up to p_limit limits, then as set_limit; rows of places.
create or replace function {schema}.bring_limits_back(p_limit integer) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_late timestamptz := v_now + interval '1 minute';
  v_names text[];
  v_count integer;
begin
  select array_agg(w.name) into v_names from (
    select l.name from {schema}.limits l
    where l.rate_count is not null and exists (
      select from {schema}.limit_starts e
      where e.limit_name = l.name and e.ends_at > v_late + l.rate_seconds / 20 * interval '1 second'
    )
    order by l.name limit p_limit
  ) w;
  if v_names is not null then
    perform {schema}.lock_limits(v_names);
    perform {schema}.move_starts(l.name, l.rate_seconds), {schema}.forget_scheduled_starts(l.name)
    from {schema}.limits l where l.name = any (v_names);
  end if;
  -- What is kept for a task lasts for 90 s at most (`take_limited_tasks`).
  update {schema}.limit_places p set ends_at = v_now + w.seconds * interval '1 second'
  from (
    select o.ctid as place, b.seconds
    from {schema}.limits l
    join {schema}.limit_places o on o.limit_name = l.name and o.ends_at > v_late
    join {schema}.stages s on s.job_id = o.job_id and s.run = o.run and s.stage = o.stage
    cross join lateral (
      select case when o.has_begun then (s.settings ->> 'lease_seconds')::double precision else 90 end as seconds
    ) b
    where o.ends_at > v_now + greatest(b.seconds + case when o.has_begun then 60 else 0 end, 60) * interval '1 second'
    limit p_limit for update of o skip locked
  ) w
  where p.ctid = w.place;
  get diagnostics v_count = row_count;
  return v_count + coalesce(cardinality(v_names), 0);
end $$;

-- Deletes places that were kept and whose time is over, those in line whose stage has ended, and up to p_limit limits that
-- nobody chose numbers for and no stage has needed for p_idle_seconds. Returns how many limits it deleted.
-- A limit whose rate still counts starts stays. Locks: those rows; a row that another transaction holds is skipped.
create or replace function {schema}.prune_limits(p_idle_seconds double precision, p_limit integer) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_count integer;
begin
  delete from {schema}.limit_places s
  where s.ctid = any (array(
    select o.ctid from {schema}.limits l
    join {schema}.limit_places o on o.limit_name = l.name and o.ends_at <= v_now
    limit p_limit for update of o skip locked
  ));
  delete from {schema}.limit_waiters w
  where w.ctid = any (array(
    select o.ctid from {schema}.limit_waiters o
    where not exists (
      select from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
      where s.job_id = o.job_id and s.run = o.run and s.stage = o.stage and {stage_is_open}
    )
    limit p_limit for update skip locked
  ));
  with idle as (
    delete from {schema}.limits l
    where l.ctid = any (array(
      select o.ctid from {schema}.limits o
      where o.used_at < v_now - p_idle_seconds * interval '1 second' and not o.is_edited
        and not exists (select from {schema}.limit_places s where s.limit_name = o.name)
        and not exists (select from {schema}.limit_waiters w where w.limit_name = o.name)
        and not exists (select from {schema}.limit_starts e where e.limit_name = o.name
          and e.ends_at > v_now - o.rate_seconds * interval '1 second')
      order by o.used_at limit p_limit for update skip locked
    ))
    returning l.name
  ), gone as (
    delete from {schema}.limit_starts e using idle i where e.limit_name = i.name
  )
  select count(*) into v_count from idle;
  return v_count;
end $$;
