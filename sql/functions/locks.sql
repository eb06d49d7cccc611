-- The advisory locks of the schema: each key is made here and nowhere else. All are held until their transaction ends.
-- Order in every function: a window's lock, those of limits, task rows by id, the stage's lock, then the rows of the stage
-- and of the job. An idempotency key's lock comes before a job row; nobody who holds a job row waits for a key.
-- docs/explanation/locking.md shows how shared and exclusive holders of a stage's lock go together.

-- The ids that name task rows, each once, in the order in which the rows are locked.
-- Wherever ids name rows, these are joined laterally with one look for each, by the whole key, and a look that takes no
-- lock ends with `offset 0`: neither is drawn into the join, so every version has this plan, with statistics or
-- without. `task_id = any (ids)` is not used: before PostgreSQL 17 an index takes it as a filter where rows are wanted
-- in order, and reads the whole stage.
-- A row that is locked is then written by its place (`ctid`), which no other transaction can change.
create or replace function {schema}.ids_in_order(p_task_ids text[]) returns table (id text)
language sql immutable as $$
  select distinct n.id collate "C" from unnest(p_task_ids) as n(id) order by 1
$$;

-- The places of task rows that the caller has locked, after it has written them.
create or replace function {schema}.places_of_tasks(p_job_id text, p_run integer, p_task_ids text[]) returns tid[]
language plpgsql stable set enable_seqscan = off as $$
begin
  return (
    select array_agg(w.place) from {schema}.ids_in_order(p_task_ids) as named
    cross join lateral (
      select t.ctid as place from {schema}.tasks t
      where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id offset 0
    ) w
  );
end $$;

-- The key of a stage's advisory lock. Numbers are cast: where somebody made an implicit cast to text, as people do who
-- come from other databases, `text || integer` means two operators, and no statement with it runs any more.
create or replace function {schema}.stage_lock_key(p_job_id text, p_run integer, p_stage integer) returns bigint
language sql stable as $$
  select hashtextextended(p_job_id || ':' || p_run::text || ':' || p_stage::text, 0)
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

-- Whether tasks of a stage may wait for an attempt, now and until this transaction ends. A function that lets tasks wait
-- again asks this when it has locked them: the end of a job skips rows that others hold, and no message may come for them.
-- p_decides: the transaction may end tasks, and with them the stage; else it shares the stage's lock.
create or replace function {schema}.keep_stage_open(p_job_id text, p_run integer, p_stage integer, p_decides boolean)
returns boolean
language plpgsql as $$
begin
  if p_decides then
    perform {schema}.lock_stage(p_job_id, p_run, p_stage);
  else
    perform {schema}.share_stage(p_job_id, p_run, p_stage);
  end if;
  return exists (
    select from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and {stage_is_open}
  );
end $$;

-- Takes a stage's lock without waiting: false when another transaction has it.
create or replace function {schema}.try_lock_stage(p_job_id text, p_run integer, p_stage integer) returns boolean
language plpgsql as $$
begin
  return pg_try_advisory_xact_lock({schema}.stage_lock_key(p_job_id, p_run, p_stage));
end $$;

-- Serializes those who take tasks into a stage's window. It is taken first, before any row, and waits for nobody who
-- holds another lock.
create or replace function {schema}.lock_window(p_job_id text, p_run integer, p_stage integer) returns void
language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform {schema}.refuse_isolation();
  end if;
  perform pg_advisory_xact_lock(hashtextextended('window:' || p_job_id || ':' || p_run::text || ':' || p_stage::text, 0));
end $$;

-- Serializes claims under limits, and those who announce for them: all of a stage's at once, in one order. They are
-- taken before any row, after a window's. Raises CM005.
create or replace function {schema}.lock_limits(p_names text[]) returns void
language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform {schema}.refuse_isolation();
  end if;
  perform pg_advisory_xact_lock(k.key) from (
    select distinct hashtextextended('limit:' || n.name, 0) as key from unnest(p_names) as n(name) order by 1
  ) k;
end $$;

-- Serializes submissions that carry the same idempotency key.
create or replace function {schema}.lock_idempotency_key(p_key text) returns void
language plpgsql as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('idempotency-key:' || p_key, 0));
end $$;

-- Whether this statement has waited long, as for a lock that somebody has on a whole table: what it read of the clock
-- when it began is old.
create or replace function {schema}.has_waited() returns boolean
language sql volatile as $$
  select clock_timestamp() > statement_timestamp() + interval '1 second'
$$;
