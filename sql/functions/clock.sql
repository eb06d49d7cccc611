-- The clock of the schema: every time that decides something is read here.

-- The clock that decides leases and due times. Tests turn it: set app.fake_now = '2026-01-01 00:00+00'.
create or replace function {schema}.clock() returns timestamptz
language sql stable as $$
  select coalesce(nullif(current_setting('app.fake_now', true), '')::timestamptz, clock_timestamp())
$$;

-- How long a lease of this very step lasts: not above zero once it has run out; null where there is none, or where it was
-- counted as an interruption or given up.
create or replace function {schema}.step_lease_seconds(
  p_lease jsonb, p_run integer, p_stage integer, p_status text, p_attempt integer
) returns double precision
language sql stable strict as $$
  select case
    when p_lease ->> 'has_ended' is null
      and p_lease -> 'at' = jsonb_build_object('run', p_run, 'stage', p_stage, 'status', p_status, 'attempt', p_attempt)
    then extract(epoch from (p_lease ->> 'expires_at')::timestamptz - {schema}.clock())::double precision
  end
$$;
