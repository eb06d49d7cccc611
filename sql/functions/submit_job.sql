-- Writes the job and its first stage, or answers with the job that is there already. Outcome:
--   created; existing (this id was there: the same type and parameters);
--   forced (a nonce was given and this id was there: a new job under p_forced_job_id, `forced_from` this id);
--   replayed (the key came before with the same payload: the job that it got then, whatever p_job_id says);
--   key_conflict (the key came before with another payload: nothing is written, the answer tells that job).
-- Fence: the primary key decides the one winner among simultaneous submissions; the key's lock, among those that carry it.
-- Locks: the key's advisory lock, then the job row. Nobody who holds a job row waits for a key.
create or replace function {schema}.submit_job(
  p_job_id text, p_job_type text, p_parameters jsonb, p_definition jsonb, p_correlation_id text,
  p_forced_job_id text default null, p_nonce text default null,
  p_idempotency_key text default null, p_payload_hash text default null
) returns table (created boolean, status text, run integer, outcome text, job_id text, correlation_id text)
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_key record;
begin
  outcome := 'existing';
  job_id := p_job_id;
  if p_idempotency_key is not null then
    perform pg_advisory_xact_lock(hashtextextended('idempotency-key:' || p_idempotency_key, 0));
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
    elsif p_nonce is not null then
      job_id := p_forced_job_id;
      outcome := 'forced';
      perform {schema}.insert_job(
        p_forced_job_id, p_job_type, p_parameters, p_definition, p_correlation_id, p_nonce, p_job_id);
    end if;
    if p_idempotency_key is not null then
      insert into {schema}.idempotency_keys (job_id, idempotency_key, payload_hash, created_at)
      values (job_id, p_idempotency_key, p_payload_hash, {schema}.clock());
    end if;
  end if;

  created := outcome in ('created', 'forced');
  select j.status, j.run, j.correlation_id into status, run, correlation_id
  from {schema}.jobs j where j.job_id = submit_job.job_id;
  return next;
end $$;

-- A new job's rows; false when its id is taken.
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
