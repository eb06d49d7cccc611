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
    if not found then
      perform {schema}.report_left_out('idempotency_keys');
    end if;
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
-- Raises CM006 when there is no such job afterwards either: somebody else's trigger left it out.
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
    if not exists (select from {schema}.jobs j where j.job_id = p_job_id) then
      raise exception 'expected job % to be inserted, found no row: a trigger or a rule of the table jobs keeps rows out; '
        'drop it', p_job_id using errcode = 'CM006';
    end if;
    return false;
  end if;
  insert into {schema}.stages (job_id, run, stage, settings, created_at)
  values (p_job_id, 1, 1, p_definition -> 'stages' -> 0, v_now);
  if not found then
    perform {schema}.report_left_out('stages');
  end if;
  perform {schema}.record_event(p_job_id, 1, null, null, 'job_submitted',
    case when p_forced_from is not null then jsonb_build_object('forced_from', p_forced_from) end);
  return true;
end $$;

-- Adds to the event of a submission that began this run: who asked, and what could not be checked.
-- It is a call of its own, since most submissions have nothing to add; a second one changes nothing.
-- Fence: only that run's event, and the rerun's row in the audit log that names nobody. Locks: these rows.
create or replace function {schema}.note_submission(p_job_id text, p_run integer, p_detail jsonb) returns void
language sql as $$
  update {schema}.job_events e set detail = e.detail || p_detail
  where e.job_id = p_job_id and e.run = p_run and e.event in ('job_submitted', 'job_rerun');
  update {schema}.audit_log a set actor = p_detail ->> 'actor'
  where p_run > 1 and p_detail ->> 'actor' is not null and a.job_id = p_job_id and a.action = 'rerun'
    and a.actor is null and (a.detail ->> 'to_run')::integer = p_run;
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

-- Writes many submissions in one transaction: all of them, or none. One row each, by its place (nth, from 1).
-- p_jobs: objects with what submit_job takes by name, and with tags, start_at, priority and detail (note_submission's).
-- Tags, start_at and priority count for a job or a run that begins here; a job that was there keeps its own.
-- Fence: that of submit_job. Locks: all keys in their order, then those of submit_job job by job in the order of ids, so
-- that two calls at one moment do not wait for each other.
create or replace function {schema}.submit_jobs(p_jobs jsonb[]) returns table (
  nth integer, status text, run integer, outcome text, job_id text, correlation_id text, same_parameters boolean
)
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_item record;
  v_key text;
begin
  for v_key in
    select distinct u.item ->> 'key' collate "C" as key from unnest(p_jobs) u(item)
    where u.item ->> 'key' is not null order by 1
  loop
    perform {schema}.lock_idempotency_key(v_key);
  end loop;
  for v_item in
    select u.place, u.item from unnest(p_jobs) with ordinality as u(item, place)
    order by u.item ->> 'job_id' collate "C", u.place
  loop
    nth := v_item.place;
    select s.status, s.run, s.outcome, s.job_id, s.correlation_id, s.same_parameters
    into submit_jobs.status, submit_jobs.run, submit_jobs.outcome, submit_jobs.job_id, submit_jobs.correlation_id,
      submit_jobs.same_parameters
    from {schema}.submit_job(
      v_item.item ->> 'job_id', v_item.item ->> 'job_type', v_item.item -> 'parameters', v_item.item -> 'definition',
      v_item.item ->> 'correlation_id', v_item.item ->> 'forced_job_id', v_item.item ->> 'nonce',
      v_item.item ->> 'key', v_item.item ->> 'payload_hash', v_item.item ->> 'if_ended',
      array(select jsonb_array_elements_text(v_item.item -> 'outside'))) s;
    if submit_jobs.outcome in ('created', 'forced', 'rerun') then
      perform {schema}.mark_submission(submit_jobs.job_id, submit_jobs.run, v_item.item);
    end if;
    return next;
  end loop;
end $$;

-- Gives a run that a submission began what its submitter wished beside its parameters: tags, start_at, priority, detail.
-- A start in the past is none. Deadlines count from the start. Locks: the job row and the stage row, both new.
create or replace function {schema}.mark_submission(p_job_id text, p_run integer, p_item jsonb) returns void
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_start timestamptz := nullif(greatest((p_item ->> 'start_at')::timestamptz, v_now), v_now);
  v_tags jsonb := nullif(p_item -> 'tags', jsonb_build_object());
begin
  if v_start is not null or v_tags is not null or p_item ->> 'priority' is not null then
    update {schema}.jobs j set tags = coalesce(v_tags, j.tags), start_at = v_start, due_at = v_start,
      priority = coalesce(p_item ->> 'priority', j.priority),
      deadline_at = j.deadline_at + coalesce(v_start - v_now, interval '0')
    where j.job_id = p_job_id and j.run = p_run;
  end if;
  if v_start is not null then
    update {schema}.stages s
    set deadline_at = s.deadline_at + (v_start - v_now), queue_deadline_at = s.queue_deadline_at + (v_start - v_now)
    where s.job_id = p_job_id and s.run = p_run and s.stage = 1;
  end if;
  if p_item -> 'detail' <> jsonb_build_object() then
    perform {schema}.note_submission(p_job_id, p_run, p_item -> 'detail');
  end if;
end $$;

-- Notes that the messages which begin these jobs are confirmed: mark_job_announced for many, of stage 1.
-- Locks: job rows by id.
create or replace function {schema}.mark_jobs_announced(p_job_ids text[], p_runs integer[]) returns integer
language plpgsql as $$
declare
  v_item record;
  v_count integer := 0;
begin
  for v_item in
    select u.id, u.run from unnest(p_job_ids, p_runs) as u(id, run) order by u.id collate "C"
  loop
    v_count := v_count + {schema}.mark_job_announced(v_item.id, v_item.run, 1)::integer;
  end loop;
  return v_count;
end $$;
