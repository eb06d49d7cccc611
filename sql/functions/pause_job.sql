-- Pauses the job: nothing new is claimed, planned or finalized; what runs ends as it would.
-- Outcome: paused; already_paused; refused (it is ended or being cancelled); missing. Locks: the job row.
create or replace function {schema}.pause_job(p_job_id text, p_reason text, p_actor text)
returns table (outcome text, status text, run integer, stage integer, is_paused boolean)
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_job record;
begin
  select j.status, j.run, j.stage, j.paused_at into v_job from {schema}.jobs j where j.job_id = p_job_id for update;
  outcome := case
    when not found then 'missing'
    when v_job.status not in ('queued', 'processing', 'finalizing') then 'refused'
    when v_job.paused_at is not null then 'already_paused'
    else 'paused'
  end;
  status := v_job.status;
  run := v_job.run;
  stage := v_job.stage;
  is_paused := outcome = 'paused' or v_job.paused_at is not null;
  if outcome = 'paused' then
    update {schema}.jobs j set paused_at = v_now, updated_at = v_now where j.job_id = p_job_id;
    perform {schema}.record_event(p_job_id, v_job.run, v_job.stage, null, 'job_paused',
      jsonb_build_object('reason', p_reason, 'actor', p_actor));
  end if;
  return next;
end $$;

-- Lets a paused job go on. Its step has to be announced again, and its parked tasks: the caller does, or the janitor.
-- Outcome: resumed; not_paused; refused (it is ended or being cancelled); missing. wait_seconds: until a step that is
-- to be tried again is due. Locks: the stage, then the job row.
create or replace function {schema}.resume_job(p_job_id text, p_reason text, p_actor text)
returns table (outcome text, status text, run integer, stage integer, is_paused boolean, wait_seconds double precision)
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_seen record;
  v_job record;
begin
  select j.run, j.stage into v_seen from {schema}.jobs j where j.job_id = p_job_id;
  if found then
    perform {schema}.lock_stage(p_job_id, v_seen.run, v_seen.stage);
  end if;
  select j.status, j.run, j.stage, j.paused_at, j.due_at into v_job
  from {schema}.jobs j where j.job_id = p_job_id for update;
  outcome := case
    when not found then 'missing'
    when v_job.status not in ('queued', 'processing', 'finalizing') then 'refused'
    when v_job.paused_at is null then 'not_paused'
    else 'resumed'
  end;
  status := v_job.status;
  run := v_job.run;
  stage := v_job.stage;
  is_paused := false;
  wait_seconds := greatest(extract(epoch from v_job.due_at - v_now), 0)::double precision;
  if outcome = 'resumed' then
    -- The time that it was paused does not count against its deadlines. A stage that it came to since the look above
    -- has hardly waited, and is not locked: it keeps its own.
    update {schema}.jobs j
    set paused_at = null, announced_at = null, updated_at = v_now,
        deadline_at = j.deadline_at + (v_now - v_job.paused_at)
    where j.job_id = p_job_id;
    update {schema}.stages s
    set deadline_at = s.deadline_at + (v_now - greatest(v_job.paused_at, s.created_at)),
        queue_deadline_at = s.queue_deadline_at + (v_now - greatest(v_job.paused_at, s.created_at))
    where s.job_id = p_job_id and s.run = v_seen.run and s.stage = v_seen.stage and v_job.run = v_seen.run
      and v_job.stage = v_seen.stage
      and coalesce(s.deadline_at, s.queue_deadline_at) is not null;
    perform {schema}.record_event(p_job_id, v_job.run, v_job.stage, null, 'job_resumed',
      jsonb_build_object('reason', p_reason, 'actor', p_actor,
        'paused_seconds', round(extract(epoch from v_now - v_job.paused_at)::numeric, 3)));
  end if;
  return next;
end $$;

-- Parked tasks of jobs that are not paused any more: of one job, or of all (p_job_id null). They are held until
-- held_until, which unpark_tasks wants to hear: nobody else finds them before. Rows in other hands are skipped.
create or replace function {schema}.find_parked_tasks(p_job_id text, p_limit integer, p_hold_seconds double precision)
returns table (
  job_id text, run integer, stage integer, task_id text, queue text, attempt integer, job_type text,
  correlation_id text, tasks_per_message integer, held_until timestamptz
)
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  return query
  with found as (
    select t.job_id, t.run, t.task_id from {schema}.tasks t
    join {schema}.jobs j on j.job_id = t.job_id and j.run = t.run and j.stage = t.stage
    where t.parked_at <= v_now and t.status in ('pending', 'queued', 'pending_retry')
      and (p_job_id is null or t.job_id = p_job_id) and j.status = 'processing' and j.paused_at is null
    order by t.parked_at limit p_limit for update of t skip locked
  ), held as (
    update {schema}.tasks t set parked_at = v_now + p_hold_seconds * interval '1 second'
    from found f where t.job_id = f.job_id and t.run = f.run and t.task_id = f.task_id
    returning t.job_id, t.run, t.stage, t.task_id, t.queue, t.attempt, t.parked_at
  )
  select h.job_id, h.run, h.stage, h.task_id, h.queue, h.attempt, j.job_type, j.correlation_id,
    coalesce((s.settings ->> 'tasks_per_message')::integer, 1), h.parked_at
  from held h
  join {schema}.jobs j on j.job_id = h.job_id
  join {schema}.stages s on s.job_id = h.job_id and s.run = h.run and s.stage = h.stage
  order by h.job_id, h.run, h.stage, h.task_id;
end $$;

-- The messages for parked tasks are confirmed. Fence: the hold; a task whose message came to a job that was paused once
-- more is parked anew and stays so.
create or replace function {schema}.unpark_tasks(
  p_job_id text, p_run integer, p_task_ids text[], p_held_until timestamptz
) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_ids text[];
begin
  select coalesce(array_agg(o.task_id), array[]::text[]) into v_ids from (
    select t.task_id from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = any (p_task_ids) and t.parked_at = p_held_until
    order by t.task_id for update
  ) o;
  update {schema}.tasks t
  set parked_at = null, announced_at = {schema}.clock(),
      status = case t.status when 'pending' then 'queued' else t.status end,
      due_at = case t.status when 'pending' then null else t.due_at end
  where t.job_id = p_job_id and t.run = p_run and t.task_id = any (v_ids);
  return cardinality(v_ids);
end $$;
