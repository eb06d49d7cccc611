-- Postponed work: this release does not know its type, so it is sent back with a growing delay, for one that does. No
-- attempt and no interruption is counted. What it waits for is noted in its row; a note counts only while the row is
-- where it was then (`at`), so nobody needs to remove it. Only the time in which somebody keeps giving it back counts
-- against p_patience_seconds: neither a pause nor an outage does. p_unknown describes what is not known: kind, name,
-- and `by` whom. p_delays: the delay after the first time, the second, and so on; the last one stays.

-- The note of work that is postponed, after one more time.
create or replace function {schema}.note_unknown_work(
  p_before jsonb, p_at jsonb, p_unknown jsonb, p_now timestamptz, p_patience_seconds double precision
) returns jsonb
language sql immutable as $$
  select p_unknown || jsonb_build_object(
    'at', p_at,
    'since', case when b.is_same then p_before -> 'since' else to_jsonb(p_now) end,
    'seen_at', p_now,
    'times', case when b.is_same then (p_before ->> 'times')::integer + 1 else 1 end,
    'waited_seconds', case when b.is_same then (p_before ->> 'waited_seconds')::double precision
      + least(greatest(extract(epoch from p_now - (p_before ->> 'seen_at')::timestamptz), 0), 120) else 0 end,
    'patience_seconds', p_patience_seconds)
  from (select coalesce(p_before -> 'at' = p_at, false) as is_same) b
$$;

-- Whether work with this note has waited long enough for a release that knows it.
create or replace function {schema}.is_patience_over(p_note jsonb) returns boolean
language sql immutable as $$
  select (p_note ->> 'waited_seconds')::double precision >= (p_note ->> 'patience_seconds')::double precision
$$;

-- The error of work that has waited long enough for a release that knows it.
create or replace function {schema}.unknown_work_error(p_note jsonb, p_attempt integer) returns jsonb
language sql stable as $$
  select {schema}.stored_error('UnknownWork',
    format('expected an app that knows the %s %s, and none came: postponed %s times since %s, last by %s; '
      'deploy the release that knows it, then rerun the job (COREMACHINE_UNKNOWN_WORK_PATIENCE_SECONDS is %s)',
      p_note ->> 'kind', p_note ->> 'name', p_note ->> 'times', p_note ->> 'since', p_note ->> 'by',
      p_note ->> 'patience_seconds'), false, p_attempt, (p_note ->> 'seen_at')::timestamptz)
$$;

-- Seconds until work with this note is retried.
create or replace function {schema}.unknown_work_delay(p_note jsonb, p_delays double precision[])
returns double precision
language sql immutable as $$
  select p_delays[least((p_note ->> 'times')::integer, cardinality(p_delays))]
$$;

-- Gives claimed tasks back, for a release that knows them, and returns one row per task.
-- Outcome: postponed, to be sent again after wait_seconds (so is one of these tasks that was postponed before and is
-- not due yet); failed, since its patience is over, with what that did to its stage and job. Those of a stage that has
-- ended are cancelled.
-- Fence: the lease. Locks: task rows by id, then the stage, then the job row.
-- Raises CM001 when the stage ended between the look at it and its lock: call again.
create or replace function {schema}.postpone_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_unknown jsonb,
  p_patience_seconds double precision, p_delays double precision[]
) returns table (
  task_id text, outcome text, queue text, wait_seconds double precision, is_last_task_in_stage boolean, job_status text
)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
  v_now timestamptz := {schema}.clock();
  v_ids text[] := {schema}.give_back_tasks(
    p_job_id, p_run, p_stage, p_lease_id, p_task_ids, false, true, null);
  v_failed text[];
  v_is_last boolean := false;
begin
  update {schema}.tasks t
  set waiting_for = {schema}.note_unknown_work(
    t.waiting_for, jsonb_build_object('attempt', t.attempt), p_unknown, v_now, p_patience_seconds)
  where t.ctid = any ({schema}.places_of_tasks(p_job_id, p_run, v_ids));
  update {schema}.tasks t
  set status = 'pending_retry',
      due_at = v_now + {schema}.unknown_work_delay(t.waiting_for, p_delays) * interval '1 second'
  where t.ctid = any ({schema}.places_of_tasks(p_job_id, p_run, v_ids))
    and not {schema}.is_patience_over(t.waiting_for);
  with failed as (
    update {schema}.tasks t
    set status = 'failed', is_watched = false, due_at = null, finished_at = v_now,
        error = {schema}.unknown_work_error(t.waiting_for, t.attempt)
    where t.ctid = any ({schema}.places_of_tasks(p_job_id, p_run, v_ids)) and t.status = 'pending'
    returning t.task_id
  )
  select array_agg(f.task_id) into v_failed from failed f;
  -- Once, not each time: it may be postponed a thousand times.
  perform {schema}.record_event(p_job_id, p_run, p_stage, min(t.task_id), 'tasks_wait_for_release',
    p_unknown || jsonb_build_object('count', count(*)))
  from {schema}.tasks t
  where t.ctid = any ({schema}.places_of_tasks(p_job_id, p_run, v_ids)) and (t.waiting_for ->> 'times')::integer = 1
  having count(*) > 0;
  if v_failed is not null then
    v_is_last := {schema}.check_stage(p_job_id, p_run, p_stage, true, v_failed);
  end if;
  return query
  select t.task_id, case t.status when 'failed' then 'failed' else 'postponed' end, t.queue,
    greatest(extract(epoch from t.due_at - v_now), 0)::double precision, v_is_last, j.status
  from {schema}.tasks t join {schema}.jobs j on j.job_id = t.job_id
  where t.ctid = any ({schema}.places_of_tasks(p_job_id, p_run, p_task_ids))
    and (t.status = 'pending_retry' or t.task_id in (select unnest(v_failed)))
  order by t.task_id;
end $$;

-- Postpones the step that a job waits for, for a release that knows it.
-- Outcome: postponed, to be announced again after delay_seconds; early (it was postponed before and is not due yet);
-- exhausted (nothing was changed: the caller fails the job with this error); not_waiting (it waits for no such step, or
-- is paused).
-- Fence: the job waits for that step of that run. Locks: the job row.
create or replace function {schema}.postpone_job_step(
  p_job_id text, p_run integer, p_stage integer, p_unknown jsonb, p_patience_seconds double precision,
  p_delays double precision[]
) returns table (outcome text, delay_seconds double precision, error jsonb)
language plpgsql as $$
#variable_conflict use_column
declare
  v_now timestamptz := {schema}.clock();
  v_job record;
  v_at jsonb;
  v_note jsonb;
begin
  select j.status, j.attempt, j.waiting_for into v_job from {schema}.jobs j
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status in ({waiting_jobs})
    and j.paused_at is null
  for update;
  if not found then
    outcome := 'not_waiting';
    return next;
    return;
  end if;
  v_at := jsonb_build_object('run', p_run, 'stage', p_stage, 'status', v_job.status, 'attempt', v_job.attempt);
  if v_job.waiting_for -> 'at' = v_at and (v_job.waiting_for ->> 'due_at')::timestamptz > v_now then
    outcome := 'early';
    delay_seconds := extract(epoch from (v_job.waiting_for ->> 'due_at')::timestamptz - v_now);
    return next;
    return;
  end if;
  v_note := {schema}.note_unknown_work(v_job.waiting_for, v_at, p_unknown, v_now, p_patience_seconds);
  if {schema}.is_patience_over(v_note) then
    outcome := 'exhausted';
    error := {schema}.unknown_work_error(v_note, v_job.attempt);
    return next;
    return;
  end if;
  outcome := 'postponed';
  delay_seconds := {schema}.unknown_work_delay(v_note, p_delays);
  v_note := v_note || jsonb_build_object('due_at', v_now + delay_seconds * interval '1 second');
  update {schema}.jobs j
  set waiting_for = v_note, due_at = (v_note ->> 'due_at')::timestamptz, announced_at = null, updated_at = v_now
  where j.job_id = p_job_id;
  if (v_note ->> 'times')::integer = 1 then
    perform {schema}.record_event(p_job_id, p_run, p_stage, null, 'job_waits_for_release', p_unknown);
  end if;
  return next;
end $$;

-- Finds what work waits for now, by kind and name, so that an app can see whether it knows it.
create or replace function {schema}.find_unknown_work(p_limit integer) returns table (kind text, name text)
language sql stable as $$
  select w.kind, w.name from (
    select j.waiting_for ->> 'kind' as kind, j.waiting_for ->> 'name' as name from {schema}.jobs j
    where j.status in ({waiting_jobs}) and j.waiting_for is not null
    union
    select t.waiting_for ->> 'kind', t.waiting_for ->> 'name' from {schema}.tasks t
    where t.status = 'pending_retry' and t.waiting_for is not null
  ) w
  limit p_limit
$$;

-- Begins the patience of work anew, where half of it is spent, since an app that knows it is there.
-- Returns for how many rows.
-- Locks: task rows by id, then job rows; those that another transaction holds are skipped.
create or replace function {schema}.renew_patience(p_kind text, p_name text, p_limit integer) returns integer
language plpgsql as $$
declare
  v_tasks integer;
  v_jobs integer;
begin
  with found as (
    select t.job_id, t.run, t.task_id from {schema}.tasks t
    where t.status = 'pending_retry' and t.waiting_for ->> 'kind' = p_kind and t.waiting_for ->> 'name' = p_name
      and {schema}.is_patience_half_over(t.waiting_for)
    order by t.job_id, t.run, t.task_id limit p_limit for update skip locked
  )
  update {schema}.tasks t set waiting_for = t.waiting_for || jsonb_build_object('waited_seconds', 0)
  from found f where t.job_id = f.job_id and t.run = f.run and t.task_id = f.task_id;
  get diagnostics v_tasks = row_count;
  with found as (
    select j.job_id from {schema}.jobs j
    where j.status in ({waiting_jobs}) and j.waiting_for ->> 'kind' = p_kind
      and j.waiting_for ->> 'name' = p_name and {schema}.is_patience_half_over(j.waiting_for)
    order by j.job_id limit p_limit for update skip locked
  )
  update {schema}.jobs j set waiting_for = j.waiting_for || jsonb_build_object('waited_seconds', 0)
  from found f where j.job_id = f.job_id;
  get diagnostics v_jobs = row_count;
  return v_tasks + v_jobs;
end $$;

-- Whether work with this note has spent half of its patience.
create or replace function {schema}.is_patience_half_over(p_note jsonb) returns boolean
language sql immutable as $$
  select (p_note ->> 'waited_seconds')::double precision * 2 >= (p_note ->> 'patience_seconds')::double precision
$$;
