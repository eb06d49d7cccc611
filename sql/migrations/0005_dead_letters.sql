-- Messages that their queue gave up, kept with what they were about.
create table {schema}."dead_letters" (
  "job_id" text collate "C" not null,
  "dead_letter_id" bigint generated always as identity,
  "queue" text collate "C" not null,
  "message_id" text collate "C" not null,
  "sequence_number" bigint not null,
  "enqueued_at" timestamptz not null,
  "kind" text not null check ("kind" in ('task', 'job', 'stage_complete', 'submission', 'unreadable')),
  "run" integer,
  "stage" integer,
  "task_id" text collate "C" not null,
  "task_ids" text[] not null,
  "reason" text collate "C",
  "description" text collate "C",
  "fingerprint" text collate "C" not null,
  "delivery_count" integer not null,
  "correlation_id" text collate "C",
  "body" text collate "C" not null,
  "body_size" integer not null,
  "received_at" timestamptz not null default now(),
  "resolved_at" timestamptz,
  "resolution" text check ("resolution" in ('redriven', 'obsolete')),
  primary key ("job_id", "dead_letter_id")
);

create unique index "dead_letters_once" on {schema}."dead_letters" ("job_id", "queue", "message_id", "sequence_number", "enqueued_at");

create index "dead_letters_of_task" on {schema}."dead_letters" ("job_id", "run", "stage", "task_id");

create index "dead_letters_by_age" on {schema}."dead_letters" ("dead_letter_id");
