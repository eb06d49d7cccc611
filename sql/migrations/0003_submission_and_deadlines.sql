-- Forced submissions, idempotency keys, and the times by which jobs, stages and tasks must be done.
alter table {schema}."jobs"
  add column "nonce" text collate "C",
  add column "forced_from" text collate "C",
  add column "deadline_at" timestamptz;

create index "jobs_by_deadline" on {schema}."jobs" ("deadline_at") where status in ('queued', 'processing', 'finalizing');

alter table {schema}."stages"
  add column "deadline_at" timestamptz,
  add column "queue_deadline_at" timestamptz;

create index "stages_by_deadline" on {schema}."stages" ("deadline_at") where status in ('queued', 'processing');

create index "stages_by_queue_deadline" on {schema}."stages" ("queue_deadline_at") where status in ('queued', 'processing');

alter table {schema}."tasks" add column "timed_out_at" timestamptz;

create table {schema}."idempotency_keys" (
  "job_id" text collate "C" not null,
  "idempotency_key" text collate "C" not null,
  "payload_hash" text collate "C" not null,
  "created_at" timestamptz not null default now(),
  primary key ("job_id", "idempotency_key"),
  foreign key ("job_id") references {schema}."jobs" on delete cascade
);

create index "idempotency_keys_by_key" on {schema}."idempotency_keys" ("idempotency_key");
