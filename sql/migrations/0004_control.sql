-- Pausing, forced cancels and reruns.
alter table {schema}."jobs"
  add column "paused_at" timestamptz,
  add column "cancel_deadline_at" timestamptz;

alter table {schema}."stages" add column "from_run" integer;

alter table {schema}."tasks"
  add column "parked_at" timestamptz,
  add column "from_run" integer;

create index "tasks_parked" on {schema}."tasks" ("parked_at") where "parked_at" is not null;

create table {schema}."job_runs" (
  "job_id" text collate "C" not null,
  "run" integer not null,
  "status" text not null check ("status" in ('queued', 'processing', 'cancelling', 'finalizing', 'completed', 'completed_with_errors', 'failed', 'cancelled')),
  "parameters" jsonb not null,
  "definition" jsonb not null,
  "result" jsonb,
  "error" jsonb,
  "finished_at" timestamptz,
  "followed_at" timestamptz not null,
  primary key ("job_id", "run"),
  foreign key ("job_id") references {schema}."jobs" on delete cascade
);
