-- Retention: only jobs that have ended are ever pruned, and in pieces. Each call is one short transaction that no
-- running work waits for.

-- Finds jobs that ended longer ago than p_older_than_seconds, the oldest first.
create or replace function {schema}.find_prunable_jobs(p_older_than_seconds double precision, p_limit integer)
returns table (job_id text, job_type text, status text, finished_at timestamptz)
language sql stable as $$
  select j.job_id, j.job_type, j.status, j.finished_at from {schema}.jobs j
  where j.status in ({ended_jobs})
    and j.finished_at < {schema}.clock() - p_older_than_seconds * interval '1 second'
  order by j.finished_at limit p_limit
$$;

-- Deletes up to p_limit tasks of an ended job, and with the last of them the job, its stages and its events.
-- Returns how many tasks it deleted, and whether the job.
-- Fence: the job has ended, read under its row's lock.
-- Locks: the job row; one that another transaction holds is skipped.
create or replace function {schema}.prune_job(p_job_id text, p_limit integer)
returns table (pruned_tasks integer, is_job_pruned boolean)
language plpgsql set enable_seqscan = off as $$
begin
  pruned_tasks := 0;
  is_job_pruned := false;
  perform 1 from {schema}.jobs j
  where j.job_id = p_job_id and j.status in ({ended_jobs})
  for update skip locked;
  if found then
    delete from {schema}.tasks t
    where t.ctid = any (array(select d.ctid from {schema}.tasks d where d.job_id = p_job_id limit p_limit));
    get diagnostics pruned_tasks = row_count;
    if pruned_tasks < p_limit then
      delete from {schema}.jobs j where j.job_id = p_job_id;
      is_job_pruned := found;
    elsif not exists (select 1 from {schema}.job_events e where e.job_id = p_job_id and e.event = 'pruning_begun') then
      perform {schema}.record_event(p_job_id, j.run, null, null, 'pruning_begun', null)
      from {schema}.jobs j where j.job_id = p_job_id;
    end if;
  end if;
  return next;
end $$;

-- Deletes the first of these ended jobs that have at most p_limit tasks altogether, whole, and returns their ids.
-- Their stages have the numbers of their tasks, so that none is counted. A job that is too large goes by prune_job.
-- Fence: the jobs have ended, read under the locks of their rows.
-- Locks: job rows; those that another transaction holds are skipped.
create or replace function {schema}.prune_small_jobs(p_job_ids text[], p_limit integer)
returns table (pruned_tasks integer, pruned_job_ids text[])
language plpgsql set enable_seqscan = off as $$
declare
  v_places tid[];
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
      where j.job_id = named.id and j.status in ({ended_jobs})
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
