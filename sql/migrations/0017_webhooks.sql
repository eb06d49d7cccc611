-- Webhooks, and their deliveries: what happened, written where it happened, until its receiver has it.
create table {schema}."webhooks" (
  "name" text collate "C" not null,
  "url" text collate "C",
  "url_setting" text collate "C",
  "events" text[] not null,
  "job_types" text[] not null,
  "tags" jsonb,
  "failed_tasks" integer not null default 1,
  "is_paused" boolean not null default false,
  "secret_setting" text collate "C",
  "secret_seed" text collate "C",
  "former_seed" text collate "C",
  "former_until" timestamptz,
  "description" text collate "C",
  "revision" integer not null default 1,
  "last_change" jsonb not null default '{{}}',
  "created_at" timestamptz not null default now(),
  "updated_at" timestamptz not null default now(),
  primary key ("name")
);

create table {schema}."webhook_deliveries" (
  "webhook" text collate "C" not null,
  "delivery_id" text collate "C" not null,
  "event" text not null check ("event" in ('job.completed', 'job.completed_with_errors', 'job.failed', 'job.cancelled', 'job.failing', 'schedule.missed', 'schedule.failed', 'webhook.test')),
  "subject" text collate "C" not null,
  "data" jsonb not null default '{{}}',
  "status" text not null default 'pending' check ("status" in ('pending', 'delivered', 'dead')),
  "attempt" integer not null default 0,
  "first_attempt" integer not null default 0,
  "due_at" timestamptz not null,
  "held_until" timestamptz,
  "http_status" integer,
  "reason" text collate "C",
  "created_at" timestamptz not null default now(),
  "settled_at" timestamptz,
  primary key ("webhook", "delivery_id")
);

create index "webhook_deliveries_due" on {schema}."webhook_deliveries" ("webhook", "due_at") where status in ('pending');

create index "webhook_deliveries_held" on {schema}."webhook_deliveries" ("webhook", "held_until") where "held_until" is not null;

create index "webhook_deliveries_by_age" on {schema}."webhook_deliveries" ("webhook", "created_at", "delivery_id");

create index "webhook_deliveries_settled" on {schema}."webhook_deliveries" ("settled_at") where "settled_at" is not null;
