-- The watch: see sql/functions/watch.sql. Stages that are open now get theirs when the janitor resumes them.
alter table {schema}."tasks" add column "is_watched" boolean not null default false;

alter table {schema}."stages" add column "is_unwatched" boolean not null default false;

create index "tasks_watched" on {schema}."tasks" ("job_id", "run", "stage") where is_watched;

create index "jobs_finished" on {schema}."jobs" ("finished_at") where status in ('completed', 'completed_with_errors', 'failed', 'cancelled');

-- Every task row is written four times in its life: dead versions are cleared away early, in small steps.
alter table {schema}."tasks" set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
