-- When a job's current run began, if it is not its first: durations count the run.
alter table {schema}."jobs" add column "run_started_at" timestamptz;

update {schema}."jobs" j
set "run_started_at" = (select max(r."followed_at") from {schema}."job_runs" r where r."job_id" = j."job_id")
where j."run" > 1;
