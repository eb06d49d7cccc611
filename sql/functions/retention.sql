-- Retention: only jobs that have ended are ever pruned, and in pieces. Each call is one short transaction that no
-- running work waits for.

-- A job under a legal hold is kept, however old it is.

-- Finds jobs that ended longer ago than p_older_than_seconds, the oldest first.
create or replace function {schema}.find_prunable_jobs(p_older_than_seconds double precision, p_limit integer)
returns table (job_id text, job_type text, status text, finished_at timestamptz)
language sql stable as $$
  select j.job_id, j.job_type, j.status, j.finished_at from {schema}.jobs j
  where j.status in ({ended_jobs}) and j.hold is null
    and j.finished_at < {schema}.clock() - p_older_than_seconds * interval '1 second'
  order by j.finished_at limit p_limit
$$;

-- Raises CM006 where jobs were deleted and rows of theirs are left: a trigger keeps them from going with their job.
-- They would be of no job, and stand in the way of another submission of it.
create or replace function {schema}.refuse_left_behind(p_job_ids text[]) returns void
language plpgsql set enable_seqscan = off as $$
declare
  v_id text;
begin
  foreach v_id in array p_job_ids loop
    if exists (select from {schema}.tasks t where t.job_id = v_id) then
      perform {schema}.report_left_out('tasks');
    elsif exists (select from {schema}.stages s where s.job_id = v_id) then
      perform {schema}.report_left_out('stages');
    elsif exists (select from {schema}.job_events e where e.job_id = v_id) then
      perform {schema}.report_left_out('job_events');
    elsif exists (select from {schema}.job_runs r where r.job_id = v_id) then
      perform {schema}.report_left_out('job_runs');
    elsif exists (select from {schema}.idempotency_keys k where k.job_id = v_id) then
      perform {schema}.report_left_out('idempotency_keys');
    end if;
  end loop;
end $$;

-- Deletes up to p_limit tasks of an ended job, and with the last of them the job, its stages and its events.
-- Returns how many tasks it deleted, and whether the job.
-- Fence: the job has ended and is under no hold, read under its row's lock.
-- Locks: the job row; one that another transaction holds is skipped.
create or replace function {schema}.prune_job(p_job_id text, p_limit integer)
returns table (pruned_tasks integer, is_job_pruned boolean)
language plpgsql set enable_seqscan = off as $$
begin
  pruned_tasks := 0;
  is_job_pruned := false;
  perform 1 from {schema}.jobs j
  where j.job_id = p_job_id and j.status in ({ended_jobs}) and j.hold is null
  for update skip locked;
  if found then
    delete from {schema}.tasks t
    where t.ctid = any (array(select d.ctid from {schema}.tasks d where d.job_id = p_job_id limit p_limit));
    get diagnostics pruned_tasks = row_count;
    if pruned_tasks < p_limit then
      delete from {schema}.jobs j where j.job_id = p_job_id;
      if not found then
        perform {schema}.report_left_out('jobs');
      end if;
      perform {schema}.refuse_left_behind(array[p_job_id]);
      is_job_pruned := true;
    elsif not exists (select 1 from {schema}.job_events e where e.job_id = p_job_id and e.event = 'pruning_begun') then
      perform {schema}.record_event(p_job_id, j.run, null, null, 'pruning_begun', null)
      from {schema}.jobs j where j.job_id = p_job_id;
    end if;
  end if;
  return next;
end $$;

-- Deletes the first of these ended jobs that have at most p_limit tasks altogether, whole, and returns their ids.
-- Their stages have the numbers of their tasks, so that none is counted. A job that is too large goes by prune_job.
-- Fence: the jobs have ended and are under no hold, read under the locks of their rows.
-- Locks: job rows; those that another transaction holds are skipped.
create or replace function {schema}.prune_small_jobs(p_job_ids text[], p_limit integer)
returns table (pruned_tasks integer, pruned_job_ids text[])
language plpgsql set enable_seqscan = off as $$
declare
  v_places tid[];
  v_count integer;
begin
  select coalesce(array_agg(w.id), array[]::text[]), array_agg(w.place) into pruned_job_ids, v_places
  from (
    select named.id, h.place, sum(h.task_count) over (order by named.nth) as total
    from unnest(p_job_ids) with ordinality as named(id, nth)
    cross join lateral (
      select j.ctid as place, coalesce((
        select sum(s.expected_count) from {schema}.stages s where s.job_id = j.job_id
      ), 0) as task_count
      from {schema}.jobs j
      where j.job_id = named.id and j.status in ({ended_jobs}) and j.hold is null
      for update skip locked
    ) h
    -- A large job does not count, so that those behind it go now.
    where h.task_count <= p_limit
  ) w
  where w.total <= p_limit;
  delete from {schema}.tasks t
  where t.ctid = any (array(
    select d.place from unnest(pruned_job_ids) as named(id)
    cross join lateral (select x.ctid as place from {schema}.tasks x where x.job_id = named.id offset 0) d
  ));
  get diagnostics pruned_tasks = row_count;
  delete from {schema}.jobs j where j.ctid = any (v_places);
  get diagnostics v_count = row_count;
  if v_count < cardinality(pruned_job_ids) then
    perform {schema}.report_left_out('jobs');
  end if;
  perform {schema}.refuse_left_behind(pruned_job_ids);
  return next;
end $$;

-- Deletes up to p_limit dead letters without a job that came longer ago than p_older_than_seconds.
-- Those of a job go after their job. Returns how many it deleted.
create or replace function {schema}.prune_dead_letters(p_older_than_seconds double precision, p_limit integer)
returns integer
language plpgsql as $$
declare
  v_count integer;
begin
  delete from {schema}.dead_letters d
  where d.ctid = any (array(
    select o.ctid from {schema}.dead_letters o
    where o.received_at < {schema}.clock() - p_older_than_seconds * interval '1 second'
      and not exists (select 1 from {schema}.jobs j where j.job_id = o.job_id)
    order by o.received_at limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- Deletes up to p_limit tasks of an ended job because somebody asked for it, and with the last of them the job.
-- Outcome: deleted; deleting (tasks are left: call again); refused (it has not ended); held (it is under a legal hold);
-- busy (another transaction has its row: call again); missing. The first call and the last one are in the audit log.
-- Fence and locks: those of prune_job.
create or replace function {schema}.delete_job(p_job_id text, p_reason text, p_actor text, p_limit integer)
returns table (outcome text, status text, pruned_tasks integer)
language plpgsql as $$
declare
  v_job record;
  v_pruned record;
begin
  pruned_tasks := 0;
  select j.status, j.run, j.job_type, j.status in ({ended_jobs}) as has_ended, j.hold, exists (
    select from {schema}.job_events e where e.job_id = p_job_id and e.event = 'pruning_begun') as has_begun
  into v_job
  from {schema}.jobs j where j.job_id = p_job_id;
  status := v_job.status;
  outcome := case when not found then 'missing' when not v_job.has_ended then 'refused'
    when v_job.hold is not null then 'held' end;
  if outcome is null then
    select p.pruned_tasks, p.is_job_pruned into v_pruned from {schema}.prune_job(p_job_id, p_limit) p;
    pruned_tasks := v_pruned.pruned_tasks;
    outcome := case when v_pruned.is_job_pruned then 'deleted' when v_pruned.pruned_tasks > 0 then 'deleting'
      else 'busy' end;
    if outcome = 'deleted' or (outcome = 'deleting' and not v_job.has_begun) then
      perform {schema}.record_audit('delete', p_job_id, p_actor, p_reason, jsonb_build_object(
        'from', v_job.status, 'run', v_job.run, 'job_type', v_job.job_type, 'is_done', outcome = 'deleted'));
    end if;
  end if;
  return next;
end $$;

-- Puts a job under a legal hold, or takes it off (p_is_held false); again changes nothing.
-- Outcome: held; released; unchanged; missing. Locks: the job row.
create or replace function {schema}.hold_job(p_job_id text, p_is_held boolean, p_reason text, p_actor text)
returns table (outcome text, status text, hold jsonb)
language plpgsql as $$
declare
  v_job record;
begin
  select j.status, j.run, j.hold into v_job from {schema}.jobs j where j.job_id = p_job_id for update;
  status := v_job.status;
  outcome := case when not found then 'missing' when (v_job.hold is not null) = p_is_held then 'unchanged'
    when p_is_held then 'held' else 'released' end;
  hold := v_job.hold;
  if outcome in ('held', 'released') then
    hold := case when p_is_held then jsonb_strip_nulls(jsonb_build_object(
      'reason', p_reason, 'actor', p_actor, 'at', {schema}.clock())) end;
    update {schema}.jobs j set hold = hold_job.hold where j.job_id = p_job_id;
    if not found then
      perform {schema}.report_left_out('jobs');
    end if;
    perform {schema}.record_event(p_job_id, v_job.run, null, null,
      case when p_is_held then 'job_held' else 'job_released' end,
      jsonb_build_object('reason', p_reason, 'actor', p_actor));
    perform {schema}.record_audit(case when p_is_held then 'hold' else 'release' end, p_job_id, p_actor, p_reason,
      jsonb_build_object('status', v_job.status, 'run', v_job.run));
  end if;
  return next;
end $$;
