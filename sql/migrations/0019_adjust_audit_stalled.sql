-- Jobs have a priority of their own, which can be changed while they run; webhooks learn of jobs that do not move.
alter table {schema}."jobs"
  add column "priority" text check ("priority" in ('high', 'normal', 'low')),
  add column "stall_noted_at" timestamptz;

alter table {schema}."webhooks" add column "stalled_seconds" integer not null default 1800;

alter table {schema}."webhook_deliveries"
  drop constraint "webhook_deliveries_event_check",
  add constraint "webhook_deliveries_event_check" check ("event" in ('job.completed', 'job.completed_with_errors', 'job.failed', 'job.cancelled', 'job.failing', 'job.stalled', 'schedule.missed', 'schedule.failed', 'webhook.test'));
