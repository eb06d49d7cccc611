-- What is stored as an error, and which errors count as the same.

-- What a cancelled job's row keeps as its error.
create or replace function {schema}.cancelled_error(p_reason text) returns jsonb
language sql immutable as $$
  select jsonb_build_object('type', 'Cancelled', 'message', coalesce(p_reason, 'cancelled'))
$$;

-- A message without what tells one occurrence from another. Its first 500 characters decide.
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

-- The same for errors of the same type whose messages differ in numbers, ids, paths and file names alone: 16 hexadecimal
-- digits. Computed when failures are looked at, so that a success costs nothing for it and old rows have one too.
create or replace function {schema}.error_fingerprint(p_type text, p_message text) returns text
language sql immutable parallel safe as $$
  select left(encode(sha256(convert_to(
    coalesce(p_type, '') || ':' || {schema}.normalised_message(coalesce(p_message, '')), 'UTF8')), 'hex'), 16)
$$;
