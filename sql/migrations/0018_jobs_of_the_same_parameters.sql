-- A job's page shows the jobs that were made beside it, with the same parameters.
create index "jobs_forced" on {schema}."jobs" ("forced_from", "created_at") where "forced_from" is not null;
