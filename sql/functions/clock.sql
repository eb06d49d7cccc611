-- The clock that decides leases and due times. Tests turn it: set app.fake_now = '2026-01-01 00:00+00'.
create or replace function {schema}.clock() returns timestamptz
language sql stable as $$
  select coalesce(nullif(current_setting('app.fake_now', true), '')::timestamptz, clock_timestamp())
$$;

-- Serializes decisions about one stage of one run, until the transaction ends; share_stage holds them off.
-- Lock order everywhere: task rows by id, then this, then the job row. Nobody goes from shared to exclusive.
-- Who has waited for it decides by what others have committed meanwhile. A snapshot of the transaction's beginning does
-- not show that, so both raise CM005 unless the transaction is read committed.
create or replace function {schema}.lock_stage(p_job_id text, p_run integer, p_stage integer) returns void
language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'expected a transaction at read committed, found %', current_setting('transaction_isolation')
      using errcode = 'CM005', hint = 'begin it with: begin isolation level read committed';
  end if;
  perform pg_advisory_xact_lock(hashtextextended(p_job_id || ':' || p_run || ':' || p_stage, 0));
end $$;

create or replace function {schema}.share_stage(p_job_id text, p_run integer, p_stage integer) returns void
language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'expected a transaction at read committed, found %', current_setting('transaction_isolation')
      using errcode = 'CM005', hint = 'begin it with: begin isolation level read committed';
  end if;
  perform pg_advisory_xact_lock_shared(hashtextextended(p_job_id || ':' || p_run || ':' || p_stage, 0));
end $$;

-- One line in the job's timeline.
create or replace function {schema}.record_event(
  p_job_id text, p_run integer, p_stage integer, p_task_id text, p_event text, p_detail jsonb
) returns void
language plpgsql as $$
begin
  insert into {schema}.job_events (job_id, run, stage, task_id, event, detail, at)
  values (p_job_id, p_run, p_stage, p_task_id, p_event, coalesce(p_detail, jsonb_build_object()), {schema}.clock());
end $$;
