-- Tags, delayed starts and legal holds of jobs; and what people did, kept beyond the jobs that they did it to.
alter table {schema}."jobs"
  add column "tags" jsonb,
  add column "start_at" timestamptz,
  add column "hold" jsonb;

create index "jobs_by_tag" on {schema}."jobs" using gin ("tags") where "tags" is not null;

create index "jobs_by_correlation" on {schema}."jobs" ("correlation_id", "created_at", "job_id");

create table {schema}."audit_log" (
  "audit_id" bigint generated always as identity,
  "job_id" text collate "C" not null,
  "action" text collate "C" not null,
  "actor" text collate "C",
  "reason" text collate "C",
  "detail" jsonb not null default '{{}}',
  "at" timestamptz not null,
  primary key ("job_id", "audit_id")
);

create index "audit_log_in_order" on {schema}."audit_log" ("audit_id");

create index "audit_log_by_age" on {schema}."audit_log" ("at");
