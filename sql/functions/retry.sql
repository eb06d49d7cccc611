-- Retries: a failed attempt, of a task or of a job's step, is retried after a delay.

-- The longest time to wait after an attempt failed, in seconds: exponential, capped.
-- p_policy: a stage's `retry`. p_attempt counts from 1, without interruptions; its exponent is bounded, since 2 ^ 2000
-- is no double precision. core/models/retry.py is the same rule, for attempts that end in their process; a test
-- compares them.
create or replace function {schema}.longest_retry_delay(p_policy jsonb, p_attempt integer) returns double precision
language sql immutable as $$
  select least((p_policy ->> 'max_delay_seconds')::double precision,
    (p_policy ->> 'base_delay_seconds')::double precision * power(2, least(p_attempt - 1, 64)))
$$;

-- Seconds to wait after an attempt failed, with full jitter: a fan-out that failed in one second comes back spread out.
create or replace function {schema}.retry_delay(p_policy jsonb, p_attempt integer) returns double precision
language sql volatile as $$
  select random() * {schema}.longest_retry_delay(p_policy, p_attempt)
$$;

-- Schedules another attempt of a task whose attempt failed: pending_retry, due after p_delay_seconds, lease given up.
-- Outcome: scheduled; exhausted (no attempt is left: nothing changed, fail it); closed (its stage or job ended: nothing
-- changed, settle it); stale (not held under this lease). Interruptions do not spend attempts.
-- is_in_line: it needs no message, if its stage is looked at after it is due: take_next_tasks takes it then. Not where
-- max_parallel or limits count what is announced, nor of a task that its stage's window has not come to.
-- Fence: the lease. Locks: the task row, then the stage, shared.
create or replace function {schema}.increment_task_retry_count(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_id text, p_error jsonb,
  p_delay_seconds double precision, p_knows_lines boolean
) returns table (outcome text, attempt integer, due_at timestamptz, is_in_line boolean)
language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
  v_now timestamptz := {schema}.clock();
  v_task record;
  v_error jsonb;
begin
  select t.attempt - t.interruptions as spent, (s.settings -> 'retry' ->> 'max_attempts')::integer as allowed,
         {stage_is_open} as is_open,
         coalesce(t.task_id <= s.window_after and t.waiting_for is null, false)
           and s.settings ->> 'limits' is null and s.settings ->> 'max_parallel' is null as is_in_line
  into v_task
  from {schema}.tasks t
  join {schema}.stages s on s.job_id = t.job_id and s.run = t.run and s.stage = t.stage
  join {schema}.jobs j on j.job_id = t.job_id
  where t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_id and t.stage = p_stage
    and t.status is not distinct from 'processing' and t.lease_id = p_lease_id
  for update of t;
  is_in_line := false;
  if not found then
    outcome := 'stale';
  elsif not v_task.is_open then
    outcome := 'closed';
  elsif v_task.spent >= v_task.allowed then
    outcome := 'exhausted';
  elsif not {schema}.keep_stage_open(p_job_id, p_run, p_stage, false) then
    outcome := 'closed';
  else
    update {schema}.tasks t
    set status = 'pending_retry', due_at = v_now + p_delay_seconds * interval '1 second',
        error = {schema}.error_of_attempt(p_error, t.attempt), announced_at = null, lease_id = null, lease_expires_at = null
    where t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_id
    returning t.attempt, t.due_at, t.error into attempt, due_at, v_error;
    if not found then
      perform {schema}.report_left_out('tasks');
    end if;
    outcome := 'scheduled';
    is_in_line := p_knows_lines and v_task.is_in_line;
    perform {schema}.record_event(p_job_id, p_run, p_stage, p_task_id, 'retry_scheduled',
      v_error || jsonb_build_object('delay_seconds', p_delay_seconds));
  end if;
  return next;
end $$;

-- The same, as a process of the release before calls it, which sends a message for each.
-- Its statements are prepared, so the result may not change while it runs.
create or replace function {schema}.increment_task_retry_count(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_id text, p_error jsonb,
  p_delay_seconds double precision
) returns table (outcome text, attempt integer, due_at timestamptz)
language sql as $$
  select r.outcome, r.attempt, r.due_at from {schema}.increment_task_retry_count(
    p_job_id, p_run, p_stage, p_lease_id, p_task_id, p_error, p_delay_seconds, false) r;
$$;

-- Schedules another attempt to plan the job's stage, or to finalize it, after p_delay_seconds.
-- Returns the number of failed attempts so far; null: somebody else has taken that step meanwhile, or has counted this
-- attempt. p_attempt: the failed attempts before this one.
-- Fence: the job waits for that step of that run, as it did when the attempt began. Locks: the job row.
create or replace function {schema}.retry_job_step(
  p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_error jsonb,
  p_delay_seconds double precision
) returns integer
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_attempt integer;
begin
  update {schema}.jobs j
  set attempt = j.attempt + 1, due_at = v_now + p_delay_seconds * interval '1 second', announced_at = null,
      updated_at = v_now
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = p_status and j.attempt = p_attempt
    and j.status in ({waiting_jobs})
  returning j.attempt into v_attempt;
  if found then
    perform {schema}.record_event(p_job_id, p_run, p_stage, null, 'job_step_retry_scheduled',
      p_error || jsonb_build_object('attempt', v_attempt, 'delay_seconds', p_delay_seconds));
  end if;
  return v_attempt;
end $$;

-- The same, as a process of the release before calls it, which does not say which attempt failed.
create or replace function {schema}.retry_job_step(
  p_job_id text, p_run integer, p_stage integer, p_error jsonb, p_delay_seconds double precision
) returns integer
language sql as $$
  select {schema}.retry_job_step(
    j.job_id, j.run, j.stage, j.status, j.attempt, p_error, p_delay_seconds)
  from {schema}.jobs j where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage
$$;
