-- When a job's current run began, if it is not its first: durations count the run. Runs that began before stay without:
-- to fill them in here would keep everybody from the table for as long as it takes.
alter table {schema}."jobs" add column "run_started_at" timestamptz;
