-- Windows: of a large stage only some tasks are announced at a time, more as they begin and end, so that no open stage
-- has the queue for itself. Tasks are taken in the order of their ids: those up to `window_after` have been, those after it
-- wait in line. So the window is one update of the stage's row for each take, and of no task row.
-- docs/adr/0028-announce-stages-in-windows.md has the reasons.

-- How many tasks a stage announces at first, where nothing is known of how long they last.
create or replace function {schema}.first_window(p_settings jsonb) returns integer
language sql immutable as $$
  select least({first_messages} * coalesce((p_settings ->> 'tasks_per_message')::integer, 1),
    (p_settings ->> 'max_parallel')::integer)
$$;

-- Opens the window of a stage, none of whose tasks is announced: nothing is taken yet. A stage with limits waits for
-- its turn at them from now on.
-- Locks: the stage row and its limits' rows, in the transaction that wrote the tasks.
create or replace function {schema}.open_window(p_job_id text, p_run integer, p_stage integer, p_tasks integer)
returns void
language plpgsql as $$
declare
  v_settings jsonb;
begin
  update {schema}.stages s set window_after = '', window_from = '', window_size = p_tasks, window_open = 0
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage
  returning s.settings into v_settings;
  if v_settings ->> 'limits' is not null then
    perform {schema}.ensure_limits(v_settings, true);
    perform {schema}.wait_for_limit(p_job_id, p_run, p_stage, ({schema}.limit_names(v_settings))[1]);
  end if;
end $$;

-- How many tasks should wait in the queue beside those that run, for a stage with this many running, and this many
-- ending per second.
-- In messages it is 2.5 times the root of what half a second takes, or of what runs: enough that no worker waits, and
-- little for others to wait for. A root, so that stages which share a queue come to have equal windows.
create or replace function {schema}.window_size(p_running integer, p_rate double precision, p_per_message integer)
returns integer
language sql immutable as $$
  select ceil(2.5 * sqrt(greatest(p_running, p_rate / 2, p_per_message) / p_per_message))::integer * p_per_message
$$;

-- A job's weight among others: how much more it gets of what they share.
create or replace function {schema}.window_weight(p_priority text) returns double precision
language sql immutable as $$
  select case p_priority when 'high' then 4.0 when 'low' then 0.25 else 1.0 end
$$;

-- Takes the next tasks of a stage into its window, without a lease, and returns them; the caller sends their messages.
-- It may be called at any time and any number of times: it fills the window and no more, by a count of what is open in
-- it. Those that went back into the line (release_tasks_into_line) come first, together with those that are due for
-- another attempt and have no message. Tasks that wait for another attempt, or for its message, have no place in it, but
-- count for max_parallel until they are due. Nothing is taken where there is no room, or little while messages of
-- the stage wait: their processes will call again. What a crash leaves without a message is found by
-- find_unannounced_tasks. The commit is not waited for, unless max_parallel rests on it: if a crash undoes it, those of
-- the same tasks that have not begun are taken again. Where processes take tasks in line without a message
-- (claim_tasks_in_line), the rows are locked, so that no task is given to both.
-- mark_each: one message of this number should be marked, whose process calls again as it begins; and the last one. Where
-- messages go on, only the last: each call waits for the claims of others, which come many times a second there.
-- is_again: a message may have named it before, so an id that no message had is needed.
-- tasks_per_message: what the caller knows of how long its tasks last decides (next_message_size); null: nothing.
-- Fence: the stage is open, and its job is not paused; it has no limits, which take_limited_tasks is for. Locks: the
-- window's, then task rows by id, then the stage row.
create or replace function {schema}.take_next_tasks(
  p_job_id text, p_run integer, p_stage integer, p_mean_seconds double precision
) returns table (
  job_id text, run integer, stage integer, task_id text, queue text, attempt integer, job_type text,
  correlation_id text, tasks_per_message integer, mark_each integer, is_again boolean
)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
#variable_conflict use_column
declare
  v_now timestamptz := {schema}.clock();
  v_window record;
  v_look record;
  v_again record;
  v_next record;
  v_before integer;
  v_per_message integer;
  v_max_parallel integer;
begin
  perform {schema}.lock_window(p_job_id, p_run, p_stage);
  select s.window_after, s.window_from, s.window_size, s.window_open, s.window_at, s.settings, j.job_type,
    {goes_on} as goes_on, j.correlation_id,
    {schema}.window_weight(coalesce(j.priority, j.definition ->> 'priority')) as weight,
    (j.definition -> 'stages' -> (s.stage - 1) ->> 'tasks_per_message')::integer as declared
  into v_window
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.window_after is not null
    and {stage_is_open} and j.paused_at is null and s.settings ->> 'limits' is null;
  if not found or not {schema}.has_tasks_in_line(p_job_id, p_run, p_stage, v_window.window_from, v_window.window_after) then
    return;
  end if;
  v_max_parallel := (v_window.settings ->> 'max_parallel')::integer;
  if v_max_parallel is null then
    perform set_config('synchronous_commit', 'off', true);
  end if;
  v_before := coalesce((v_window.settings ->> 'tasks_per_message')::integer, 1);
  v_per_message := least({schema}.next_message_size(v_before, coalesce(v_window.declared, {most_per_message}),
    p_mean_seconds), v_max_parallel);
  select w.room, w.size, w.open_count, w.back_count, w.first_id into v_look
  from {schema}.look_at_window(p_job_id, p_run, p_stage, v_window.window_from, v_window.window_after,
    -- As many messages as before, whatever their size is now.
    v_window.window_size * v_per_message / v_before, v_window.window_open, v_window.window_at, v_per_message,
    v_window.weight, v_max_parallel, v_now) w;
  if v_look.room <= 0 then
    return;
  end if;
  select array_agg(b.task_id) as ids, array_agg(b.queue) as queues, array_agg(b.attempt) as attempts,
    array_agg(b.place) as places, count(*)::integer as count
  into v_again
  from (
    select t.task_id, t.queue, t.attempt, t.ctid as place from {schema}.tasks t
    where v_look.back_count > 0
      and t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ({open_tasks})
      and t.task_id >= v_window.window_from and t.task_id <= v_window.window_after and {is_back_in_line}
    order by t.task_id limit v_look.room for update
  ) b;
  if v_window.goes_on then
    select array_agg(n.task_id) as ids, array_agg(n.queue) as queues, array_agg(n.attempt) as attempts,
      count(*)::integer as count
    into v_next
    from {schema}.lock_tasks_in_line(
      p_job_id, p_run, p_stage, v_window.window_after, v_look.room - v_again.count) n;
  else
    select array_agg(n.task_id) as ids, array_agg(n.queue) as queues, array_agg(n.attempt) as attempts,
      count(*)::integer as count
    into v_next
    from {schema}.tasks_in_line(p_job_id, p_run, p_stage, v_window.window_after, v_look.room - v_again.count) n;
  end if;
  if v_again.count + v_next.count = 0 then
    return;
  end if;
  if v_again.count > 0 then
    update {schema}.tasks t set status = 'pending', due_at = null, announced_at = null
    where t.ctid = any (v_again.places);
  end if;
  -- From where it was: between that and the first of the next there may be tasks that run without a message, and which
  -- find_unannounced_tasks has to find if their process dies.
  update {schema}.stages s
  set window_after = coalesce(v_next.ids[v_next.count], s.window_after),
      window_from = coalesce(v_look.first_id, v_window.window_after), window_size = v_look.size, window_at = v_now,
      window_open = v_look.open_count + v_again.count + v_next.count,
      settings = s.settings || jsonb_build_object('tasks_per_message', v_per_message)
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  return query
  select p_job_id, p_run, p_stage, t.task_id, t.queue, t.attempt, v_window.job_type, v_window.correlation_id,
    v_per_message,
    case when v_max_parallel is not null then 1 when v_window.goes_on then v_look.size
      else greatest(v_look.size / v_per_message / 2, 1) end,
    t.place <= v_again.count
  from unnest(v_again.ids || v_next.ids, v_again.queues || v_next.queues, v_again.attempts || v_next.attempts)
    with ordinality as t(task_id, queue, attempt, place);
end $$;

-- How many tasks the next messages of a stage name: p_most, which its author declares, if their work lasts no more than
-- {whole_seconds} seconds; else as many as last {message_seconds}. At most ten times as many as before, since quick tasks
-- end first; what differs by less than a half stays.
create or replace function {schema}.next_message_size(p_size integer, p_most integer, p_mean_seconds double precision)
returns integer
language sql immutable as $$
  select case when p_mean_seconds is null then p_size
    when w.size * 2 > p_size * 3 or w.size * 3 < p_size * 2 then w.size else p_size end
  from (
    select least(p_most, p_size * 10, case when p_mean_seconds * p_most <= {whole_seconds} then p_most
      else greatest(floor({message_seconds} / p_mean_seconds), 1) end)::integer as size
  ) w
$$;

-- Releases claimed tasks as give_back_tasks does, and those of a stage that has a window into its line: they are
-- pending, and have no message until somebody takes them again. Those of a stage with limits wait for their turn at these.
-- Returns which were released, and whether they are in line; else the caller sends messages for them. p_mean_seconds is
-- for next_message_size, as in take_next_tasks.
-- In the line they are known by a time in announced_at, since their ids are not above window_after.
-- Fence: the lease. Locks: the window's, those of the stage's limits, then those of give_back_tasks and the stage row.
-- Raises CM001 as give_back_tasks does.
create or replace function {schema}.release_tasks_into_line(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_started boolean,
  p_mean_seconds double precision
) returns table (released_ids text[], is_in_line boolean)
language plpgsql set enable_seqscan = off as $$
declare
  v_stage record;
begin
  perform {schema}.lock_window(p_job_id, p_run, p_stage);
  select s.window_after, {schema}.limit_names(s.settings) as limits into v_stage
  from {schema}.stages s where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  if v_stage.limits is not null then
    perform {schema}.lock_limits(v_stage.limits);
  end if;
  released_ids := {schema}.give_back_tasks(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_started, p_started,
    case when v_stage.limits is null then v_stage.window_after end);
  is_in_line := v_stage.window_after is not null and cardinality(released_ids) > 0;
  if is_in_line and v_stage.limits is not null then
    perform {schema}.hold_back_tasks(p_job_id, p_run, p_stage, released_ids,
      {schema}.places_of_tasks(p_job_id, p_run, released_ids), v_stage.limits[1]);
  end if;
  if is_in_line then
    perform {schema}.note_back_in_line(p_job_id, p_run, p_stage, cardinality(released_ids), p_mean_seconds);
  end if;
  return next;
end $$;

-- Puts tasks that a message names, and that nobody has claimed, back into their stage's line: the message has work for
-- longer than it should. Returns which. A claim of them and its release would be two updates of each.
-- p_mean_seconds is for next_message_size, as in take_next_tasks.
-- Fence: the stage is open, and has no limits; the tasks wait, their job is not paused, and its window has come to them.
-- Locks: the window's, task rows by id, then the stage row.
create or replace function {schema}.return_tasks_to_line(
  p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_mean_seconds double precision
) returns text[]
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_window_after text;
  v_ids text[];
  v_places tid[];
begin
  perform {schema}.lock_window(p_job_id, p_run, p_stage);
  select s.window_after into v_window_after
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and {stage_is_open} and j.paused_at is null
    and s.settings ->> 'limits' is null;
  select coalesce(array_agg(named.id), array[]::text[]), array_agg(w.place) into v_ids, v_places
  from {schema}.ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
      and t.status in ({ready_tasks}) and t.parked_at is null and t.task_id <= v_window_after
    for update
  ) w;
  if cardinality(v_ids) > 0 then
    update {schema}.tasks t set status = 'pending', announced_at = v_now, due_at = null
    where t.ctid = any (v_places);
    perform {schema}.note_back_in_line(p_job_id, p_run, p_stage, cardinality(v_ids), p_mean_seconds);
  end if;
  return v_ids;
end $$;

-- Counts tasks out of a stage's window, and notes how many the next messages name. The caller has the window's lock.
create or replace function {schema}.note_back_in_line(
  p_job_id text, p_run integer, p_stage integer, p_count integer, p_mean_seconds double precision
) returns void
language plpgsql as $$
declare
  v_before integer;
  v_size integer;
begin
  select (s.settings ->> 'tasks_per_message')::integer into v_before
  from {schema}.stages s where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  v_size := coalesce({schema}.next_message_size(v_before, v_before, p_mean_seconds), 1);
  update {schema}.stages s
  set window_open = greatest(s.window_open - p_count, 0),
      window_size = s.window_size * v_size / coalesce(v_before, 1),
      settings = s.settings || jsonb_build_object('tasks_per_message', v_size)
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
end $$;

-- How long tasks of a stage took, by the first p_limit completed ones from p_from to p_to, in seconds; null if there are
-- none. Tasks of one message are claimed together and may run one after the other, so its time is divided by their
-- number. Messages that shared their claim are taken for one that is as large as each of them.
create or replace function {schema}.mean_task_seconds(
  p_job_id text, p_run integer, p_stage integer, p_from text, p_to text, p_per_message integer, p_limit integer
) returns double precision
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_sort = off
set enable_bitmapscan = off as $$
begin
  return (
    select (sum(m.seconds) / sum(least(m.tasks, p_per_message)))::double precision from (
      select extract(epoch from max(t.finished_at) - t.started_at) as seconds, count(*) as tasks from (
        select x.started_at, x.finished_at from {schema}.tasks x
        where x.job_id = p_job_id and x.run = p_run and x.stage = p_stage and x.status = 'completed'
          and x.task_id >= p_from and x.task_id <= p_to
        order by x.task_id limit p_limit
      ) t
      group by t.started_at
    ) m
  );
end $$;

-- The tasks of a stage after the one with this id that wait in line, in order.
-- Others after it run without a message, or wait for another attempt or for the janitor. Without sorts: a planner that
-- does not know how many are asked for would read them all and sort them.
create or replace function {schema}.tasks_in_line(
  p_job_id text, p_run integer, p_stage integer, p_after text, p_limit integer
) returns table (task_id text, queue text, attempt integer, status text)
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_sort = off
set enable_bitmapscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  return query
  select t.task_id, t.queue, t.attempt, t.status from {schema}.tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ({open_tasks})
    and t.task_id > p_after and {is_in_line}
  order by t.task_id limit p_limit;
end $$;

-- The same, each as it is when nobody else has it, and locked. Locks: task rows by id.
create or replace function {schema}.lock_tasks_in_line(
  p_job_id text, p_run integer, p_stage integer, p_after text, p_limit integer
) returns table (task_id text, queue text, attempt integer)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_sort = off
set enable_bitmapscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  return query
  select t.task_id, t.queue, t.attempt from {schema}.tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ({open_tasks})
    and t.task_id > p_after and {is_in_line}
  order by t.task_id limit p_limit for update;
end $$;

-- Whether a stage has tasks that wait in line: after its window, or back from it.
create or replace function {schema}.has_tasks_in_line(
  p_job_id text, p_run integer, p_stage integer, p_from text, p_after text
) returns boolean
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  return exists (select from {schema}.tasks_in_line(p_job_id, p_run, p_stage, p_after, 1)) or exists (
    select from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ({open_tasks})
      and t.task_id >= p_from and t.task_id <= p_after and {is_back_in_line}
  );
end $$;

-- What is open in a window, and the room that is left in it: 0 if it is better used later.
-- What went back into the line is counted apart. first_id: the first of both. size: the mean of what it was and of what
-- window_size returns now, so that one slow or quick moment changes little; less than 20 ms after the last take it stays.
-- A stage's share of a queue is its share of the messages there, and the size of its window grows with the root of what it
-- gets. So a weight counts as its root, but for the first window, whose size is not measured.
create or replace function {schema}.look_at_window(
  p_job_id text, p_run integer, p_stage integer, p_from text, p_after text, p_size integer, p_open integer,
  p_at timestamptz, p_per_message integer, p_weight double precision, p_max_parallel integer, p_now timestamptz
) returns table (room integer, size integer, open_count integer, back_count integer, first_id text)
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := p_now;
  v_seen record;
  v_seconds double precision := extract(epoch from p_now - p_at);
  v_weight double precision := p_weight;
  v_wanted integer;
  v_waiting integer;
begin
  select count(*)::integer as open, count(*) filter (where t.status = 'processing')::integer as running,
    count(*) filter (where t.status = 'pending_retry' and t.due_at > p_now)::integer as later, min(t.task_id) as first,
    count(*) filter (where {is_back_in_line})::integer as back
  into v_seen
  from {schema}.tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ({open_tasks})
    and t.task_id >= p_from and t.task_id <= p_after;
  open_count := v_seen.open - v_seen.back;
  back_count := v_seen.back;
  first_id := v_seen.first;
  size := p_size;
  if p_at is not null then
    v_weight := sqrt(p_weight);
  end if;
  if v_seconds >= 0.02 then
    size := greatest(
      (p_size + {schema}.window_size(v_seen.running, greatest(p_open - open_count, 0) / v_seconds, p_per_message)) / 2,
      p_per_message);
  end if;
  v_wanted := greatest(ceil(size * v_weight / p_per_message)::integer, 1) * p_per_message;
  v_waiting := open_count - v_seen.later - v_seen.running;
  room := v_wanted - v_waiting;
  if p_max_parallel is not null then
    room := least(room, p_max_parallel - open_count);
  elsif room <= 0 or (v_waiting > 0 and room < greatest(v_wanted / 4, p_per_message)) then
    room := 0;
  else
    -- Whole messages.
    room := greatest(room / p_per_message, 1) * p_per_message;
  end if;
  return next;
end $$;

-- Finds stages whose window nobody has looked after for p_idle_seconds, though tasks wait in line: the process
-- that should have died, is of a release that knows no windows, or runs tasks that last long.
-- Those of p_planned_seconds ago whose first tasks were not taken, too. Those with limits wait for their turn instead. It looks
-- at up to p_limit jobs, in random order.
create or replace function {schema}.find_idle_windows(
  p_limit integer, p_planned_seconds double precision, p_idle_seconds double precision
) returns table (job_id text, run integer, stage integer)
language sql volatile set enable_seqscan = off as $$
  select w.job_id, w.run, w.stage from (
    select s.job_id, s.run, s.stage, s.window_from, s.window_after
    from {schema}.jobs j
    join {schema}.stages s on s.job_id = j.job_id and s.run = j.run and s.stage = j.stage
    where j.status = 'processing' and j.paused_at is null and s.status = 'processing' and s.window_after is not null
      and s.settings ->> 'limits' is null
      and coalesce(s.window_at + p_idle_seconds * interval '1 second',
        s.planned_at + p_planned_seconds * interval '1 second') < {schema}.clock()
    order by random() limit p_limit
  ) w
  where {schema}.has_tasks_in_line(w.job_id, w.run, w.stage, w.window_from, w.window_after)
$$;
