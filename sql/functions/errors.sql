-- Errors: the one shape in which they are stored, and the fingerprint by which they are grouped.

-- An error as rows keep it: every error that SQL writes is made here.
-- Its fields are those of `Failure.to_json` in core/errors.py, which writes the errors of handlers and planners. The
-- caller may add fields that go with its type.
create or replace function {schema}.stored_error(
  p_type text, p_message text, p_retryable boolean, p_attempt integer, p_at timestamptz
) returns jsonb
language sql stable as $$
  select jsonb_build_object('type', p_type, 'message', p_message, 'retryable', p_retryable, 'attempt', p_attempt,
    'traceback', null, 'at', p_at)
$$;

-- The error of a task's attempt, as a handler's process gave it, with the number of that attempt.
-- `attempt` of a task's error means the same wherever it is stored: the row's `attempt`, interrupted ones counted.
create or replace function {schema}.error_of_attempt(p_error jsonb, p_attempt integer) returns jsonb
language sql immutable as $$
  select p_error || jsonb_build_object('attempt', p_attempt)
$$;

-- The error that a cancelled job's row keeps.
create or replace function {schema}.cancelled_error(p_reason text) returns jsonb
language sql stable as $$
  select {schema}.stored_error('Cancelled', coalesce(p_reason, 'cancelled'), false, null, {schema}.clock())
$$;

-- A message without what distinguishes one occurrence of an error from another. Its first 500 characters decide.
create or replace function {schema}.normalised_message(p_message text) returns text
language sql immutable parallel safe as $$
  select regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
    left(p_message, 500),
    -- Paths and URLs, in quotes (where they may hold spaces) or bare.
    '''[^'']*[/\\][^'']*''|"[^"]*[/\\][^"]*"|[^\s''"(),;]*[/\\][^\s''"(),;]*', '.', 'g'),
    -- Names of files, in quotes.
    '''[^'']*\.[A-Za-z][A-Za-z0-9]{{1,4}}''|"[^"]*\.[A-Za-z][A-Za-z0-9]{{1,4}}"', '.', 'g'),
    -- Words with a digit in them: numbers, uuids, hashes, times, tile_12. Quotes around one go with it.
    '[''"]?[\w.:+-]*[0-9][\w.:+-]*[''"]?', '.', 'g'),
    -- Hexadecimal digits that happen to be letters alone.
    '\m[a-f]{{8,}}\M', '.', 'g'),
    -- A list of such things is one, however long.
    '\.([\s,;:-]+\.)+', '.', 'g'),
    '\s+', ' ', 'g')
$$;

-- The group of an error: 16 hexadecimal digits, the same for errors that differ in numbers, ids and paths alone.
-- It is computed when failures are looked at, so that a success costs nothing for it and old rows have one too.
create or replace function {schema}.error_fingerprint(p_type text, p_message text) returns text
language sql immutable parallel safe as $$
  select left(encode(sha256(convert_to(
    coalesce(p_type, '') || ':' || {schema}.normalised_message(coalesce(p_message, '')), 'UTF8')), 'hex'), 16)
$$;

-- How often, for people: once, or a number of times.
create or replace function {schema}.times_in_words(p_count bigint) returns text
language sql immutable parallel safe as $$
  select case when p_count = 1 then 'once' else format('%s times', p_count) end
$$;

-- Raises CM006: rows that were to be inserted or changed are not, so a trigger or a rule that is not ours left them out.
-- What relies on them would go wrong later, and silently.
create or replace function {schema}.report_left_out(p_table text) returns void
language plpgsql as $$
begin
  raise exception 'expected all rows to be written, found fewer: a trigger or a rule of the table % keeps rows out; drop it',
    p_table using errcode = 'CM006';
end $$;
