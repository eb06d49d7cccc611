-- Leases: an attempt's right to its task, extended by the heartbeats of its process; and the lease of who takes a job's
-- step, which is none to a task.

-- Extends leases that one process holds, of any jobs, and returns one row with an outcome for each that it still has.
-- Outcome: renewed; stop (the job or stage ended or is being cancelled: the lease is extended so that the task can end
-- in order); timed_out (it has run longer than its stage's task_timeout_seconds: the rest of the lease is for ending in
-- order, and the row notes the time). A lease without a row is lost: another attempt has the task, or it ended.
-- A row that somebody has locked is not waited for, since all other leases of the process would wait too: it counts as
-- renewed and stays as it is, and the next call finds out.
-- Fence: the lease. Locks: task rows by job and id, in that order. It decides nothing, so it may span jobs.
create or replace function {schema}.renew_leases(
  p_job_ids text[], p_runs integer[], p_task_ids text[], p_lease_ids uuid[], p_progress jsonb[]
) returns table (lease_id uuid, task_id text, outcome text)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_places tid[];
begin
  select array_agg(h.place) into v_places from (
    select * from unnest(p_job_ids, p_runs, p_task_ids, p_lease_ids) as a(job_id, run, task_id, lease_id)
    order by a.job_id collate "C", a.task_id collate "C"
  ) asked
  cross join lateral (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = asked.job_id and t.run = asked.run and t.task_id = asked.task_id
      and t.status is not distinct from 'processing' and t.lease_id = asked.lease_id
    for update skip locked
  ) h;
  if cardinality(v_places) is distinct from cardinality(p_task_ids) then
    return query
    select asked.lease_id, asked.task_id, 'renewed'
    from unnest(p_job_ids, p_runs, p_task_ids, p_lease_ids) as asked(job_id, run, task_id, lease_id)
    cross join lateral (
      select t.ctid as place from {schema}.tasks t
      where t.job_id = asked.job_id and t.run = asked.run and t.task_id = asked.task_id
        and t.status is not distinct from 'processing' and t.lease_id = asked.lease_id
      offset 0
    ) h
    where h.place <> all (coalesce(v_places, array[]::tid[]));
  end if;
  return query
  update {schema}.tasks t
  set lease_expires_at = case when {schema}.is_task_timed_out(t.started_at, s.settings, v_now) then t.lease_expires_at
        else v_now + (s.settings ->> 'lease_seconds')::double precision * interval '1 second' end,
      timed_out_at = case when {schema}.is_task_timed_out(t.started_at, s.settings, v_now)
        then coalesce(t.timed_out_at, v_now) end,
      progress = coalesce(asked.progress, t.progress)
  from unnest(p_task_ids, p_lease_ids, p_progress) as asked(task_id, lease_id, progress),
    {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where t.ctid = any (v_places) and t.task_id = asked.task_id and t.lease_id = asked.lease_id
    and s.job_id = t.job_id and s.run = t.run and s.stage = t.stage
  returning t.lease_id, t.task_id,
    case when not {stage_is_open} then 'stop'
      when {schema}.is_task_timed_out(t.started_at, s.settings, v_now) then 'timed_out' else 'renewed' end;
  if {schema}.has_waited() then
    perform {schema}.begin_leases_now(p_task_ids, p_lease_ids, false);
  end if;
end $$;

-- Begins leases anew that a statement has given or extended with an old time, since it had waited: an expired lease, of a
-- process that lives, is taken back by the next sweep. p_is_claim: the attempt begins now, too.
-- Fence: the lease. Locks: the rows, which this transaction has written.
create or replace function {schema}.begin_leases_now(p_task_ids text[], p_lease_ids uuid[], p_is_claim boolean)
returns void
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  -- All that is leased by any process is read: only after somebody had locked a table.
  update {schema}.tasks t
  set lease_expires_at = v_now + (s.settings ->> 'lease_seconds')::double precision * interval '1 second',
      started_at = case when p_is_claim then v_now else t.started_at end
  from {schema}.stages s
  where t.status = 'processing' and t.timed_out_at is null
    and (t.task_id, t.lease_id) in (select * from unnest(p_task_ids, p_lease_ids))
    and s.job_id = t.job_id and s.run = t.run and s.stage = t.stage;
end $$;

-- Extends all leases under an owner's name: for the stand-in of a process that cannot ask itself.
-- It also covers a claim whose answer was lost. seconds_left is of the lease as it is now.
-- Fence: the leases as found; one that another attempt got in between is left alone. Locks: those of renew_leases.
create or replace function {schema}.renew_leases_of_owner(p_owner text)
returns table (job_id text, task_id text, outcome text, seconds_left double precision)
language plpgsql set enable_seqscan = off as $$
declare
  v_found record;
  v_renewed record;
begin
  -- All that is leased by any process is read: once in some seconds, and only while a process is blocked.
  select array_agg(t.job_id) as job_ids, array_agg(t.run) as runs, array_agg(t.task_id) as task_ids,
         array_agg(t.lease_id) as lease_ids
  into v_found
  from {schema}.tasks t where t.status = 'processing' and t.lease_owner = p_owner;
  if v_found.job_ids is null then
    return;
  end if;
  select array_agg(r.lease_id) as lease_ids, array_agg(r.task_id) as task_ids, array_agg(r.outcome) as outcomes
  into v_renewed
  from {schema}.renew_leases(v_found.job_ids, v_found.runs, v_found.task_ids, v_found.lease_ids,
    array_fill(null::jsonb, array[cardinality(v_found.job_ids)])) r;
  return query
  select t.job_id, t.task_id, r.outcome,
    extract(epoch from t.lease_expires_at - {schema}.clock())::double precision
  from unnest(v_renewed.lease_ids, v_renewed.task_ids, v_renewed.outcomes) as r(lease_id, task_id, outcome)
  join unnest(v_found.job_ids, v_found.runs, v_found.task_ids, v_found.lease_ids) as f(job_id, run, task_id, lease_id)
    on f.task_id = r.task_id and f.lease_id = r.lease_id
  cross join lateral (
    select x.job_id, x.task_id, x.lease_expires_at from {schema}.tasks x
    where x.job_id = f.job_id and x.run = f.run and x.task_id = r.task_id and x.lease_id = r.lease_id offset 0
  ) t;
end $$;

-- The tasks of a stage that this lease holds, in order, as a claim returns them.
-- All that is leased by any process is read: only where an answer may have been lost.
create or replace function {schema}.tasks_of_lease(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid)
returns table (
  task_id text, attempt integer, interruptions integer, task_type text, task_index integer, name text, parameters jsonb
)
language plpgsql stable set enable_seqscan = off as $$
begin
  return query
  select t.task_id, t.attempt, t.interruptions, t.task_type, t.task_index, t.name, t.parameters from {schema}.tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status = 'processing'
    and t.lease_id = p_lease_id
  order by t.task_id;
end $$;

-- Extends the lease of the process that takes a job's step: plans its stage, or makes its summary. False: the job does
-- not wait for that step any more, or another process has its lease. A row that somebody has locked is not waited for, as
-- in renew_leases.
-- Fence: the step, and the lease. Locks: the job row.
create or replace function {schema}.renew_step_lease(
  p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_owner text,
  p_seconds double precision
) returns boolean
language plpgsql as $$
begin
  perform from {schema}.jobs j where j.job_id = p_job_id for no key update skip locked;
  if not found then
    return exists (select from {schema}.jobs j where j.job_id = p_job_id);
  end if;
  update {schema}.jobs j
  set step_lease = case
    when j.step_lease ->> 'owner' = p_owner
      and {schema}.step_lease_seconds(j.step_lease, p_run, p_stage, p_status, p_attempt) is not null
    then j.step_lease || jsonb_build_object('expires_at', {schema}.clock() + p_seconds * interval '1 second')
    else {schema}.new_step_lease(j.step_lease, p_run, p_stage, p_status, p_attempt, p_owner, p_seconds) end
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = p_status and j.attempt = p_attempt
    and j.status in ({waiting_jobs})
    and (j.step_lease ->> 'owner' = p_owner
      or coalesce({schema}.step_lease_seconds(j.step_lease, p_run, p_stage, p_status, p_attempt) <= 0, true));
  return found;
end $$;

-- Gives a step that was begun before to the process that takes it again, with a lease from its begin. No row: the job
-- does not wait for that step any more, or a living process has its lease.
-- interruptions: how many processes ended while they had this step; alone: how many of them did nothing else; owner: the
-- last of them.
-- Fence: the step, and the lease. Locks: the job row.
create or replace function {schema}.take_step_again(
  p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_owner text,
  p_seconds double precision, p_is_alone boolean
) returns table (interruptions integer, alone integer, owner text)
language plpgsql as $$
declare
  v_lease jsonb;
  v_left double precision;
begin
  select j.step_lease into v_lease from {schema}.jobs j
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = p_status and j.attempt = p_attempt
    and j.status in ({waiting_jobs}) and j.paused_at is null
  for no key update;
  if not found then
    return;
  end if;
  v_left := {schema}.step_lease_seconds(v_lease, p_run, p_stage, p_status, p_attempt);
  if v_left > 0 and v_lease ->> 'owner' <> p_owner then
    return;
  elsif v_left <= 0 and v_lease ->> 'owner' <> p_owner then
    v_lease := {schema}.end_step_lease(p_job_id, v_lease);
  end if;
  owner := v_lease ->> 'lost';
  v_lease := {schema}.new_step_lease(v_lease, p_run, p_stage, p_status, p_attempt, p_owner, p_seconds);
  update {schema}.jobs j set step_lease = v_lease || jsonb_build_object('is_alone', p_is_alone)
  where j.job_id = p_job_id;
  interruptions := coalesce((v_lease ->> 'interruptions')::integer, 0);
  alone := coalesce((v_lease ->> 'alone')::integer, 0);
  return next;
end $$;

-- A lease of a step, as its job's row has it. What is noted of processes that ended over the same step is kept.
create or replace function {schema}.new_step_lease(
  p_before jsonb, p_run integer, p_stage integer, p_status text, p_attempt integer, p_owner text,
  p_seconds double precision
) returns jsonb
language sql stable as $$
  select jsonb_build_object('owner', p_owner, 'since', {schema}.clock(), 'at', a.at,
      'expires_at', {schema}.clock() + p_seconds * interval '1 second')
    || case when p_before -> 'at' = a.at
      then jsonb_strip_nulls(jsonb_build_object(
        'interruptions', p_before -> 'interruptions', 'alone', p_before -> 'alone', 'lost', p_before -> 'lost'))
      else jsonb_build_object() end
  from (
    select jsonb_build_object('run', p_run, 'stage', p_stage, 'status', p_status, 'attempt', p_attempt) as at
  ) a
$$;

-- Counts an interruption of a step, since the lease of its process has run out. Returns what is noted of it from then on.
-- Locks: the caller has the job row, and writes the note there.
create or replace function {schema}.end_step_lease(p_job_id text, p_lease jsonb) returns jsonb
language plpgsql as $$
declare
  v_count integer := coalesce((p_lease ->> 'interruptions')::integer, 0) + 1;
  v_alone integer := coalesce((p_lease ->> 'alone')::integer, 0);
begin
  if (p_lease ->> 'is_alone')::boolean then
    v_alone := v_alone + 1;
  end if;
  perform {schema}.record_event(p_job_id, (p_lease -> 'at' ->> 'run')::integer, (p_lease -> 'at' ->> 'stage')::integer,
    null, 'job_step_interrupted', jsonb_build_object('interruptions', v_count, 'owner', p_lease ->> 'owner'));
  return p_lease || jsonb_build_object(
    'has_ended', true, 'interruptions', v_count, 'alone', v_alone, 'lost', p_lease ->> 'owner');
end $$;

-- Ends a step's lease: another process may take the step at once. Returns whether there was one.
-- What is noted of processes that ended over the step stays as long as the job waits for it.
-- Fence: the lease. Locks: the job row.
create or replace function {schema}.release_step_lease(
  p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_owner text
) returns boolean
language plpgsql as $$
begin
  update {schema}.jobs j set step_lease = case
    when j.step_lease ->> 'interruptions' is not null
      and (j.run, j.stage, j.status, j.attempt) = (p_run, p_stage, p_status, p_attempt)
    then j.step_lease || jsonb_build_object('has_ended', true) end
  where j.job_id = p_job_id and j.step_lease ->> 'owner' = p_owner
    and {schema}.step_lease_seconds(j.step_lease, p_run, p_stage, p_status, p_attempt) is not null;
  return found;
end $$;

-- Whether a process that lives takes the step.
create or replace function {schema}.is_step_leased(
  p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer
) returns boolean
language sql stable as $$
  select coalesce((
    select {schema}.step_lease_seconds(j.step_lease, p_run, p_stage, p_status, p_attempt) > 0
    from {schema}.jobs j where j.job_id = p_job_id
  ), false)
$$;
