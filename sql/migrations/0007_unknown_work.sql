-- What waits for a release that knows it: what that is, since when, and who gave it back last.
alter table {schema}."jobs" add column "waiting_for" jsonb;

alter table {schema}."tasks" add column "waiting_for" jsonb;
