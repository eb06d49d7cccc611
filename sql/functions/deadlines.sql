-- Declared deadlines: set where rows are written, enforced here. Waiting work without one is never judged by its age,
-- and the time that a job is paused does not count.

-- Sets a job's deadline at the beginning of each run.
-- It is a trigger, so that no function that begins a run can forget it.
create or replace function {schema}.set_job_deadline() returns trigger
language plpgsql as $$
begin
  new.deadline_at := (case tg_op when 'INSERT' then new.created_at else {schema}.clock() end)
    + (new.definition ->> 'timeout_seconds')::double precision * interval '1 second';
  return new;
end $$;

create or replace trigger set_deadline_of_new before insert on {schema}.jobs
for each row execute function {schema}.set_job_deadline();

create or replace trigger set_deadline_of_run before update of run on {schema}.jobs
for each row when (old.run is distinct from new.run) execute function {schema}.set_job_deadline();

-- Sets a stage's deadlines, both counted from the moment its row is written: the job has come to it.
create or replace function {schema}.set_stage_deadlines() returns trigger
language plpgsql as $$
begin
  new.deadline_at := new.created_at
    + (new.settings ->> 'timeout_seconds')::double precision * interval '1 second';
  new.queue_deadline_at := new.created_at
    + (new.settings ->> 'queue_timeout_seconds')::double precision * interval '1 second';
  return new;
end $$;

create or replace trigger set_deadlines before insert on {schema}.stages
for each row execute function {schema}.set_stage_deadlines();

-- Whether an attempt that began at p_started_at has used up its stage's task_timeout_seconds.
create or replace function {schema}.is_task_timed_out(
  p_started_at timestamptz, p_settings jsonb, p_now timestamptz
) returns boolean
language sql immutable as $$
  select coalesce(
    p_started_at + (p_settings ->> 'task_timeout_seconds')::double precision * interval '1 second' <= p_now, false)
$$;

-- Finds the stages where jobs are whose own deadline, or whose stage's, has passed; for the janitor.
create or replace function {schema}.find_overdue_stages(p_limit integer)
returns table (job_id text, run integer, stage integer)
language sql stable as $$
  (
    select j.job_id, j.run, j.stage from {schema}.jobs j
    where j.status in ({active_jobs}) and j.deadline_at <= {schema}.clock()
      and j.paused_at is null
    order by j.deadline_at limit p_limit
  ) union (
    select s.job_id, s.run, s.stage from {schema}.stages s
    join {schema}.jobs j on j.job_id = s.job_id and j.run = s.run and j.stage = s.stage
    where s.status in ({open_stages}) and s.deadline_at <= {schema}.clock()
      and j.status in ({active_jobs}) and j.paused_at is null
    order by s.deadline_at limit p_limit
  ) union (
    select s.job_id, s.run, s.stage from {schema}.stages s
    join {schema}.jobs j on j.job_id = s.job_id and j.run = s.run and j.stage = s.stage
    where s.status in ({open_stages}) and s.queue_deadline_at <= {schema}.clock()
      and j.status in ({active_jobs}) and j.paused_at is null
      and (s.status = 'queued' or exists (
        select 1 from {schema}.tasks t
        where t.job_id = s.job_id and t.run = s.run and t.stage = s.stage
          and t.status in ({waiting_tasks}) and t.attempt = 0
      ))
    order by s.queue_deadline_at limit p_limit
  )
$$;

-- Ends what is overdue at the stage where the job is.
-- Outcome: job_timed_out, stage_timed_out, queue_time_expired (its planning never began), in which the job has failed;
-- tasks_expired (at most p_limit tasks that nobody had started failed, and the stage's policy was applied); nothing (no
-- deadline has passed, or the job has advanced).
-- Fence: the deadline and the statuses, read again under the locks. The first transaction to have the lock decides: a
-- completion that came before counts, one that comes after finds its stage ended.
-- Locks: task rows by id (those that another transaction holds are skipped: they are being started), the stage, the job
-- row.
-- Raises CM001 when the stage ended between the look at it and its lock: call again.
create or replace function {schema}.enforce_deadlines(
  p_job_id text, p_run integer, p_stage integer, p_limit integer
) returns table (outcome text, expired_count integer, is_last_task_in_stage boolean, job_status text)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_error jsonb;
  v_expired text[];
begin
  outcome := 'nothing';
  expired_count := 0;
  is_last_task_in_stage := false;
  v_error := {schema}.find_missed_deadline(p_job_id, p_run, p_stage, v_now);
  if v_error is not null then
    perform {schema}.lock_stage(p_job_id, p_run, p_stage);
    perform 1 from {schema}.jobs j where j.job_id = p_job_id for update;
    v_error := {schema}.find_missed_deadline(p_job_id, p_run, p_stage, v_now);
    if v_error is not null and {schema}.end_job(p_job_id, p_run, 'failed', v_error) then
      outcome := case v_error ->> 'type'
        when 'JobTimedOut' then 'job_timed_out' when 'StageTimedOut' then 'stage_timed_out'
        else 'queue_time_expired' end;
    end if;
  elsif exists (
    select 1 from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.queue_deadline_at <= v_now
      and {stage_is_open} and j.paused_at is null
  ) then
    v_expired := {schema}.expire_unstarted_tasks(p_job_id, p_run, p_stage, p_limit);
    if v_expired is not null then
      outcome := 'tasks_expired';
      expired_count := cardinality(v_expired);
      is_last_task_in_stage := {schema}.check_stage(p_job_id, p_run, p_stage, true, v_expired);
    end if;
  end if;
  select j.status into job_status from {schema}.jobs j where j.job_id = p_job_id;
  return next;
end $$;

-- The error of the deadline that the job has missed at this stage, the widest first; null when it missed none.
create or replace function {schema}.find_missed_deadline(
  p_job_id text, p_run integer, p_stage integer, p_now timestamptz
) returns jsonb
language sql stable as $$
  select {schema}.stored_error(m.type, m.message, false, null, p_now)
    || jsonb_build_object('stage', p_stage, 'deadline_at', m.deadline_at)
  from {schema}.jobs j
  join {schema}.stages s on s.job_id = j.job_id and s.run = j.run and s.stage = j.stage
  cross join lateral (
    select * from (values
      (1, 'JobTimedOut', j.deadline_at, j.status in ({active_jobs}),
        format('the job was to end within %s s, its timeout_seconds, and was at stage %s of %s',
          (j.definition ->> 'timeout_seconds')::double precision, j.stage, j.total_stages)),
      (2, 'StageTimedOut', s.deadline_at, s.status in ({open_stages}) and j.status in ({active_jobs}),
        format('stage %s was to end within %s s, its timeout_seconds, and was %s',
          s.stage, (s.settings ->> 'timeout_seconds')::double precision, s.status)),
      (3, 'QueueTimeExpired', s.queue_deadline_at, s.status = 'queued' and j.status = 'queued',
        format('stage %s was to begin within %s s, its queue_timeout_seconds, and was not planned by then',
          s.stage, (s.settings ->> 'queue_timeout_seconds')::double precision))
    ) as d(place, type, deadline_at, is_open, message)
    where d.is_open and d.deadline_at <= p_now
    order by d.place limit 1
  ) m
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.paused_at is null
$$;

-- Fails tasks that no attempt has begun, and returns their ids; the caller checks the stage.
-- Locks: task rows by id, none waited for.
create or replace function {schema}.expire_unstarted_tasks(
  p_job_id text, p_run integer, p_stage integer, p_limit integer
) returns text[]
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_ids text[];
  v_places tid[];
begin
  select array_agg(e.task_id), array_agg(e.place) into v_ids, v_places from (
    select t.task_id, t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and t.status in ({waiting_tasks}) and t.attempt = 0
    order by t.task_id limit p_limit for update skip locked
  ) e;
  update {schema}.tasks t
  set status = 'failed', is_watched = false, due_at = null, parked_at = null, finished_at = v_now,
      error = {schema}.stored_error('QueueTimeExpired',
        format('was to begin within %s s of its stage, the queue_timeout_seconds of that, and had not by then',
          (s.settings ->> 'queue_timeout_seconds')::double precision), false, 0, v_now)
  from {schema}.stages s
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage
    and t.ctid = any (v_places);
  return v_ids;
end $$;
