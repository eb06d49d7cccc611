-- The advisory locks of the schema: each key is made here and nowhere else. All are held until their transaction ends.
-- Order in every function: task rows by id, then the stage's lock, then the job row. An idempotency key's lock comes
-- before a job row; nobody who holds a job row waits for a key.
-- docs/explanation/locking.md shows how shared and exclusive holders of a stage's lock go together.

-- The key of a stage's advisory lock.
create or replace function {schema}.stage_lock_key(p_job_id text, p_run integer, p_stage integer) returns bigint
language sql stable as $$
  select hashtextextended(p_job_id || ':' || p_run || ':' || p_stage, 0)
$$;

-- Raises CM005: the transaction is not read committed.
-- A transaction that has waited for a stage's lock decides by what others have committed meanwhile, which a snapshot of
-- its beginning does not show. Callers test the setting themselves, since a call costs more than the test.
create or replace function {schema}.refuse_isolation() returns void
language plpgsql as $$
begin
  raise exception 'expected a transaction at read committed, found %', current_setting('transaction_isolation')
    using errcode = 'CM005', hint = 'begin it with: begin isolation level read committed';
end $$;

-- Serializes decisions about one stage of one run: waits for all who share its lock, and they wait for it.
-- No transaction goes from shared to exclusive. Raises CM005.
create or replace function {schema}.lock_stage(p_job_id text, p_run integer, p_stage integer) returns void
language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform {schema}.refuse_isolation();
  end if;
  perform pg_advisory_xact_lock({schema}.stage_lock_key(p_job_id, p_run, p_stage));
end $$;

-- Holds off decisions about a stage, side by side with others who share its lock. Raises CM005.
create or replace function {schema}.share_stage(p_job_id text, p_run integer, p_stage integer) returns void
language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform {schema}.refuse_isolation();
  end if;
  perform pg_advisory_xact_lock_shared({schema}.stage_lock_key(p_job_id, p_run, p_stage));
end $$;

-- Takes a stage's lock without waiting: false when another transaction has it.
create or replace function {schema}.try_lock_stage(p_job_id text, p_run integer, p_stage integer) returns boolean
language plpgsql as $$
begin
  return pg_try_advisory_xact_lock({schema}.stage_lock_key(p_job_id, p_run, p_stage));
end $$;

-- Serializes submissions that carry the same idempotency key.
create or replace function {schema}.lock_idempotency_key(p_key text) returns void
language plpgsql as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('idempotency-key:' || p_key, 0));
end $$;
