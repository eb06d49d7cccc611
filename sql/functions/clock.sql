-- The clock of the schema: every time that decides something is read here.

-- The clock that decides leases and due times. Tests turn it: set app.fake_now = '2026-01-01 00:00+00'.
create or replace function {schema}.clock() returns timestamptz
language sql stable as $$
  select coalesce(nullif(current_setting('app.fake_now', true), '')::timestamptz, clock_timestamp())
$$;
