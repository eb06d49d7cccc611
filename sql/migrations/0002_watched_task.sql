-- The watch: see sql/functions/watch.sql. Stages that are open now get theirs when the janitor resumes them.
alter table {schema}."tasks" add column "is_watched" boolean not null default false;

alter table {schema}."stages" add column "is_unwatched" boolean not null default false;

create index "tasks_watched" on {schema}."tasks" ("job_id", "run", "stage") where is_watched;
