-- The processes of all apps, and what they can do.
create table {schema}."app_instances" (
  "instance" text collate "C" not null,
  "app_name" text collate "C" not null,
  "mode" text collate "C" not null,
  "version" text collate "C" not null,
  "release" text collate "C",
  "queues" text[] not null,
  "task_types" text[] not null,
  "job_types" text[] not null,
  "slots" integer not null,
  "started_at" timestamptz not null,
  "seen_at" timestamptz not null,
  "ended_at" timestamptz,
  primary key ("instance")
);
