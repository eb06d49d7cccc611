-- Submissions: a job is written once for one id; a further submission gets the job that is there.

-- Writes a job and its first stage, or answers with the job that is there already.
-- Outcome: created; existing (this id was there: the same type and parameters); forced (a nonce was given and this id
-- was there: a new job under p_forced_job_id, `forced_from` this id); rerun (this id was there and had ended: its next
-- run, all of it, with these parameters); refused (this id was there, and its present run is not one for this
-- submission; nothing is written); other_parameters (this id was there, and its present run has other parameters;
-- nothing is written); replayed (the key came before with the same payload: the job that it got then, whatever p_job_id
-- is); key_conflict (the key came before with another payload: nothing is written, the answer names that job).
-- p_if_ended is what the caller wants where the job that is there does not run with these parameters (it has ended, is
-- being cancelled, or a rerun gave it others): return (existing), force (forced; without it a nonce forces whatever
-- runs), rerun (rerun if it has ended), fail (refused). Replays are answered as before, whatever it is. same_parameters
-- is false where the answered job's present run does not have the parameters that its id was made of, also for refused
-- and replayed.
-- Fence: the primary key decides the one winner among simultaneous submissions; the key's lock, among those that carry
-- it; for a rerun, the run that was there before the job's row was locked: of two at one moment one begins it.
-- Locks: the key's advisory lock, then the job row.
create or replace function {schema}.submit_job(
  p_job_id text, p_job_type text, p_parameters jsonb, p_definition jsonb, p_correlation_id text,
  p_forced_job_id text, p_nonce text,
  p_idempotency_key text, p_payload_hash text, p_if_ended text, p_outside text[]
) returns table (
  created boolean, status text, run integer, outcome text, job_id text, correlation_id text, same_parameters boolean
)
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_key record;
begin
  outcome := 'existing';
  job_id := p_job_id;
  if p_idempotency_key is not null then
    perform {schema}.lock_idempotency_key(p_idempotency_key);
    select k.job_id, k.payload_hash into v_key
    from {schema}.idempotency_keys k where k.idempotency_key = p_idempotency_key;
    if found then
      outcome := case when v_key.payload_hash = p_payload_hash then 'replayed' else 'key_conflict' end;
      job_id := v_key.job_id;
    end if;
  end if;

  if outcome = 'existing' then
    if {schema}.insert_job(p_job_id, p_job_type, p_parameters, p_definition, p_correlation_id, null, null) then
      outcome := 'created';
    else
      outcome := {schema}.outcome_of_found_job(
        p_job_id, p_parameters, p_definition, p_nonce is not null, p_if_ended, p_outside);
    end if;
    if outcome = 'forced' then
      job_id := p_forced_job_id;
      perform {schema}.insert_job(
        p_forced_job_id, p_job_type, p_parameters, p_definition, p_correlation_id, p_nonce, p_job_id);
    end if;
  end if;

  created := outcome in ('created', 'forced');
  select j.status, j.run, j.correlation_id, created
    or {schema}.has_own_parameters(j.job_id, j.run, j.parameters, p_parameters, p_outside)
  into status, run, correlation_id, same_parameters
  from {schema}.jobs j where j.job_id = submit_job.job_id;
  if outcome = 'existing' and not same_parameters then
    outcome := 'other_parameters';
  end if;
  -- A refused submission leaves its key unused.
  if p_idempotency_key is not null and outcome in ('created', 'forced', 'rerun', 'existing') then
    insert into {schema}.idempotency_keys (job_id, idempotency_key, payload_hash, created_at)
    values (job_id, p_idempotency_key, p_payload_hash, {schema}.clock());
  end if;
  return next;
end $$;

-- What becomes of a submission whose job is there: existing, forced (which the caller carries out), refused, or rerun.
-- Fence: the run as it was looked at, without a lock. Locks: those of rerun_job.
create or replace function {schema}.outcome_of_found_job(
  p_job_id text, p_parameters jsonb, p_definition jsonb, p_has_nonce boolean, p_if_ended text, p_outside text[]
) returns text
language plpgsql as $$
declare
  v_found record;
  v_outcome text;
begin
  select j.run, j.status in ({ended_jobs}) as has_ended,
    j.status in ({active_jobs})
      and {schema}.has_own_parameters(j.job_id, j.run, j.parameters, p_parameters, p_outside) as is_on_its_way
  into v_found
  from {schema}.jobs j where j.job_id = p_job_id;
  if p_has_nonce and (p_if_ended <> 'force' or not v_found.is_on_its_way) then
    return 'forced';
  elsif p_if_ended = 'fail' and not v_found.is_on_its_way then
    return 'refused';
  elsif p_if_ended = 'rerun' and v_found.has_ended then
    select r.outcome into v_outcome from {schema}.rerun_job(
      p_job_id, v_found.run, 'all', null, p_parameters, p_definition, 'submitted again', null) r;
    return case when v_outcome = 'rerun' then 'rerun' else 'existing' end;
  end if;
  return 'existing';
end $$;

-- Whether the job's present run has the parameters that its id was made of: those submitted, or those of its first run.
-- Only a rerun gives it others. An earlier run with others counts too, unless a rerun of everything came after it: the
-- present run may have kept its results. p_outside: names of parameters that are not in the id, which may differ.
create or replace function {schema}.has_own_parameters(
  p_job_id text, p_run integer, p_parameters jsonb, p_submitted jsonb, p_outside text[]
) returns boolean
language sql stable as $$
  select p_run = 1 or not exists (
    select from (
      select r.run, r.parameters from {schema}.job_runs r where r.job_id = p_job_id
      union all select p_run, p_parameters
    ) u
    where u.run >= coalesce((
        select max(e.run) from {schema}.job_events e
        where e.job_id = p_job_id and e.event = 'job_rerun' and e.stage = 1
          and e.detail ->> 'mode' in ('all', 'from_stage')), 1)
      and u.parameters - p_outside is distinct from p_submitted - p_outside
      and u.parameters - p_outside is distinct from (
        select f.parameters - p_outside from {schema}.job_runs f where f.job_id = p_job_id and f.run = 1))
$$;

-- Inserts a new job with its first stage; false when its id is taken.
create or replace function {schema}.insert_job(
  p_job_id text, p_job_type text, p_parameters jsonb, p_definition jsonb, p_correlation_id text,
  p_nonce text, p_forced_from text
) returns boolean
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  insert into {schema}.jobs (
    job_id, job_type, total_stages, parameters, definition, correlation_id, nonce, forced_from, created_at, updated_at
  ) values (
    p_job_id, p_job_type, jsonb_array_length(p_definition -> 'stages'), p_parameters, p_definition,
    p_correlation_id, p_nonce, p_forced_from, v_now, v_now
  ) on conflict do nothing;
  if not found then
    return false;
  end if;
  insert into {schema}.stages (job_id, run, stage, settings, created_at)
  values (p_job_id, 1, 1, p_definition -> 'stages' -> 0, v_now);
  perform {schema}.record_event(p_job_id, 1, null, null, 'job_submitted',
    case when p_forced_from is not null then jsonb_build_object('forced_from', p_forced_from) end);
  return true;
end $$;

-- Adds to the event of a submission that began this run: who asked, and what could not be checked.
-- It is a call of its own, since most submissions have nothing to add; a second one changes nothing.
-- Fence: only that run's event. Locks: the event.
create or replace function {schema}.note_submission(p_job_id text, p_run integer, p_detail jsonb) returns void
language sql as $$
  update {schema}.job_events e set detail = e.detail || p_detail
  where e.job_id = p_job_id and e.run = p_run and e.event in ('job_submitted', 'job_rerun');
$$;

-- Keeps the trace of the submission that began this run. It is a call of its own, since most apps record no traces.
-- Fence: the run. Locks: the job row.
create or replace function {schema}.note_trace(p_job_id text, p_run integer, p_traceparent text) returns void
language sql as $$
  update {schema}.jobs j set traceparent = p_traceparent where j.job_id = p_job_id and j.run = p_run;
$$;

-- Writes a job and its first stage, as a process of the release before calls it.
-- Its statements are prepared, so neither the arguments nor the result of a function that it knows may change while it
-- runs. Outcomes that it does not know are not returned to it.
create or replace function {schema}.submit_job(
  p_job_id text, p_job_type text, p_parameters jsonb, p_definition jsonb, p_correlation_id text,
  p_forced_job_id text default null, p_nonce text default null,
  p_idempotency_key text default null, p_payload_hash text default null
) returns table (created boolean, status text, run integer, outcome text, job_id text, correlation_id text)
language sql as $$
  select s.created, s.status, s.run, case s.outcome when 'other_parameters' then 'existing' else s.outcome end,
    s.job_id, s.correlation_id
  from {schema}.submit_job(p_job_id, p_job_type, p_parameters, p_definition, p_correlation_id, p_forced_job_id, p_nonce,
    p_idempotency_key, p_payload_hash, 'return', array[]::text[]) s;
$$;
