-- Limits that stages of any jobs share: places, rates, and who waits for them.
alter table {schema}."tasks"
  add column "is_limited" boolean not null default false,
  add column "held_for" text collate "C";

create table {schema}."limits" (
  "name" text collate "C" not null,
  "at_once" integer,
  "rate_count" integer,
  "rate_seconds" double precision,
  "is_edited" boolean not null default false,
  "turn" double precision not null default 0,
  "created_at" timestamptz not null default now(),
  "used_at" timestamptz not null,
  "edited_at" timestamptz,
  "edited_by" text collate "C",
  "reason" text collate "C",
  primary key ("name")
);

create index "limits_by_use" on {schema}."limits" ("used_at");

create table {schema}."limit_places" (
  "job_id" text collate "C" not null,
  "run" integer not null,
  "task_id" text collate "C" not null,
  "limit_name" text collate "C" not null,
  "stage" integer not null,
  "has_begun" boolean not null,
  "ends_at" timestamptz,
  primary key ("job_id", "run", "task_id", "limit_name")
) with (autovacuum_vacuum_scale_factor = 0.02);

create index "limit_places_by_limit" on {schema}."limit_places" ("limit_name", "ends_at");

create table {schema}."limit_starts" (
  "limit_name" text collate "C" not null,
  "ends_at" timestamptz not null,
  "count" integer not null,
  primary key ("limit_name", "ends_at")
);

create table {schema}."limit_waiters" (
  "job_id" text collate "C" not null,
  "run" integer not null,
  "stage" integer not null,
  "limit_name" text collate "C" not null,
  "turn" double precision not null,
  primary key ("job_id", "run", "stage")
);

create index "limit_waiters_in_turn" on {schema}."limit_waiters" ("limit_name", "turn");
