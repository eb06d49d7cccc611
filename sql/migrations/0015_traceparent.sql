-- The trace of a job's submission, which everything that is done for the job belongs to.
alter table {schema}."jobs" add column "traceparent" text collate "C";
