-- Tables and indexes as the first release had them. Functions and triggers are not migrated: they are applied again.
create table {schema}."jobs" (
  "job_id" text not null,
  "job_type" text not null,
  "status" text not null default 'queued' check ("status" in ('queued', 'processing', 'cancelling', 'finalizing', 'completed', 'completed_with_errors', 'failed', 'cancelled')),
  "run" integer not null default 1,
  "stage" integer not null default 1,
  "total_stages" integer not null,
  "parameters" jsonb not null default '{{}}',
  "definition" jsonb not null,
  "correlation_id" text not null,
  "result" jsonb,
  "error" jsonb,
  "attempt" integer not null default 0,
  "due_at" timestamptz,
  "announced_at" timestamptz,
  "created_at" timestamptz not null default now(),
  "updated_at" timestamptz not null default now(),
  "finished_at" timestamptz,
  primary key ("job_id")
);

create index "jobs_by_age" on {schema}."jobs" ("created_at", "job_id");

create index "jobs_by_status" on {schema}."jobs" ("status", "created_at", "job_id");

create index "jobs_by_type" on {schema}."jobs" ("job_type", "created_at", "job_id");

create index "jobs_open" on {schema}."jobs" ("updated_at", "job_id") where status in ('queued', 'processing', 'cancelling', 'finalizing');

create table {schema}."stages" (
  "job_id" text not null,
  "run" integer not null,
  "stage" integer not null,
  "status" text not null default 'queued' check ("status" in ('queued', 'processing', 'completed', 'completed_with_errors', 'failed', 'cancelled')),
  "settings" jsonb not null,
  "expected_count" integer,
  "failed_count" integer not null default 0,
  "created_at" timestamptz not null default now(),
  "planned_at" timestamptz,
  "finished_at" timestamptz,
  primary key ("job_id", "run", "stage"),
  foreign key ("job_id") references {schema}."jobs" on delete cascade
);

create table {schema}."tasks" (
  "job_id" text not null,
  "run" integer not null,
  "task_id" text not null,
  "stage" integer not null,
  "task_index" integer not null,
  "task_type" text not null,
  "queue" text not null,
  "name" text,
  "parameters" jsonb not null default '{{}}',
  "status" text not null default 'pending' check ("status" in ('pending', 'queued', 'processing', 'pending_retry', 'completed', 'failed', 'cancelled')),
  "attempt" integer not null default 0,
  "interruptions" integer not null default 0,
  "lease_id" uuid,
  "lease_expires_at" timestamptz,
  "lease_owner" text,
  "due_at" timestamptz,
  "announced_at" timestamptz,
  "progress" jsonb,
  "result" jsonb,
  "error" jsonb,
  "created_at" timestamptz not null default now(),
  "started_at" timestamptz,
  "finished_at" timestamptz,
  primary key ("job_id", "run", "task_id"),
  foreign key ("job_id", "run", "stage") references {schema}."stages" on delete cascade
);

create index "tasks_open" on {schema}."tasks" ("job_id", "run", "stage", "task_id") where status in ('pending', 'queued', 'processing', 'pending_retry');

create unique index "tasks_by_stage" on {schema}."tasks" ("job_id", "run", "stage", "task_index");

create index "tasks_failed" on {schema}."tasks" ("job_id", "run", "stage", "task_index") where status in ('failed');

create index "tasks_leased" on {schema}."tasks" ("lease_expires_at") where status in ('processing');

create index "tasks_unannounced" on {schema}."tasks" ("created_at") where status in ('pending');

create index "tasks_due" on {schema}."tasks" ("due_at") where status in ('pending_retry');

create table {schema}."job_events" (
  "job_id" text not null,
  "event_id" bigint generated always as identity,
  "run" integer not null,
  "stage" integer,
  "task_id" text,
  "event" text not null,
  "detail" jsonb not null default '{{}}',
  "at" timestamptz not null,
  primary key ("job_id", "event_id"),
  foreign key ("job_id") references {schema}."jobs" on delete cascade
);
