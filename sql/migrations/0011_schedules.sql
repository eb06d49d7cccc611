-- Schedules, and what became of each of their ticks.
create table {schema}."schedules" (
  "name" text collate "C" not null,
  "job_type" text collate "C" not null,
  "parameters" jsonb not null default '{{}}',
  "cron" text collate "C" not null,
  "time_zone" text collate "C" not null,
  "catch_up" text not null default 'latest' check ("catch_up" in ('skip', 'latest', 'all')),
  "overlap" text not null default 'skip' check ("overlap" in ('skip', 'wait', 'allow')),
  "starts_at" timestamptz,
  "ends_at" timestamptz,
  "description" text collate "C",
  "revision" integer not null default 1,
  "next_tick_at" timestamptz,
  "paused_at" timestamptz,
  "last_change" jsonb not null default '{{}}',
  "created_at" timestamptz not null default now(),
  "updated_at" timestamptz not null default now(),
  primary key ("name")
);

create index "schedules_by_tick" on {schema}."schedules" ("next_tick_at");

create table {schema}."schedule_ticks" (
  "schedule" text collate "C" not null,
  "tick_at" timestamptz not null,
  "until_at" timestamptz,
  "is_manual" boolean not null default false,
  "status" text not null check ("status" in ('waiting', 'due', 'submitted', 'skipped', 'failed')),
  "reason" text collate "C",
  "detail" text collate "C",
  "job_type" text collate "C" not null,
  "parameters" jsonb not null default '{{}}',
  "submission_key" text collate "C" not null,
  "submitted_job_id" text collate "C",
  "attempt" integer not null default 0,
  "held_until" timestamptz,
  "actor" text collate "C",
  "created_at" timestamptz not null default now(),
  "decided_at" timestamptz,
  primary key ("schedule", "tick_at"),
  foreign key ("schedule") references {schema}."schedules" on delete cascade
);

create index "schedule_ticks_open" on {schema}."schedule_ticks" ("tick_at", "schedule") where status in ('waiting', 'due');

create index "schedule_ticks_by_age" on {schema}."schedule_ticks" ("decided_at");
