create schema if not exists "app";

create table if not exists "app"."jobs" (
  "job_id" text collate "C" not null,
  "job_type" text collate "C" not null,
  "status" text not null default 'queued' check ("status" in ('queued', 'processing', 'cancelling', 'finalizing', 'completed', 'completed_with_errors', 'failed', 'cancelled')),
  "run" integer not null default 1,
  "stage" integer not null default 1,
  "total_stages" integer not null,
  "parameters" jsonb not null default '{}',
  "definition" jsonb not null,
  "correlation_id" text collate "C" not null,
  "result" jsonb,
  "error" jsonb,
  "attempt" integer not null default 0,
  "due_at" timestamptz,
  "announced_at" timestamptz,
  "created_at" timestamptz not null default now(),
  "updated_at" timestamptz not null default now(),
  "finished_at" timestamptz,
  "nonce" text collate "C",
  "forced_from" text collate "C",
  "deadline_at" timestamptz,
  "paused_at" timestamptz,
  "cancel_deadline_at" timestamptz,
  "waiting_for" jsonb,
  "run_started_at" timestamptz,
  "tags" jsonb,
  "start_at" timestamptz,
  "hold" jsonb,
  "traceparent" text collate "C",
  "priority" text check ("priority" in ('high', 'normal', 'low')),
  "stall_noted_at" timestamptz,
  "step_lease" jsonb,
  primary key ("job_id")
);

create index if not exists "jobs_by_age" on "app"."jobs" ("created_at", "job_id");

create index if not exists "jobs_by_status" on "app"."jobs" ("status", "created_at", "job_id");

create index if not exists "jobs_by_type" on "app"."jobs" ("job_type", "created_at", "job_id");

create index if not exists "jobs_open" on "app"."jobs" ("updated_at", "job_id") where status in ('queued', 'processing', 'cancelling', 'finalizing');

create index if not exists "jobs_finished" on "app"."jobs" ("finished_at") where status in ('completed', 'completed_with_errors', 'failed', 'cancelled');

create index if not exists "jobs_by_deadline" on "app"."jobs" ("deadline_at") where status in ('queued', 'processing', 'finalizing');

create index if not exists "jobs_by_tag" on "app"."jobs" using gin ("tags") where "tags" is not null;

create index if not exists "jobs_by_correlation" on "app"."jobs" ("correlation_id", "created_at", "job_id");

create index if not exists "jobs_forced" on "app"."jobs" ("forced_from", "created_at") where "forced_from" is not null;

create table if not exists "app"."job_runs" (
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
  foreign key ("job_id") references "app"."jobs" on delete cascade
);

create table if not exists "app"."stages" (
  "job_id" text collate "C" not null,
  "run" integer not null,
  "stage" integer not null,
  "status" text not null default 'queued' check ("status" in ('queued', 'processing', 'completed', 'completed_with_errors', 'failed', 'cancelled')),
  "settings" jsonb not null,
  "expected_count" integer,
  "failed_count" integer not null default 0,
  "created_at" timestamptz not null default now(),
  "planned_at" timestamptz,
  "finished_at" timestamptz,
  "is_unwatched" boolean not null default false,
  "deadline_at" timestamptz,
  "queue_deadline_at" timestamptz,
  "from_run" integer,
  "window_after" text collate "C",
  "window_from" text collate "C",
  "window_size" integer,
  "window_open" integer,
  "window_at" timestamptz,
  primary key ("job_id", "run", "stage"),
  foreign key ("job_id") references "app"."jobs" on delete cascade
);

create index if not exists "stages_by_deadline" on "app"."stages" ("deadline_at") where status in ('queued', 'processing');

create index if not exists "stages_by_queue_deadline" on "app"."stages" ("queue_deadline_at") where status in ('queued', 'processing');

create table if not exists "app"."tasks" (
  "job_id" text collate "C" not null,
  "run" integer not null,
  "task_id" text collate "C" not null,
  "stage" integer not null,
  "task_index" integer not null,
  "task_type" text collate "C" not null,
  "queue" text collate "C" not null,
  "name" text collate "C",
  "parameters" jsonb not null default '{}',
  "status" text not null default 'pending' check ("status" in ('pending', 'queued', 'processing', 'pending_retry', 'completed', 'failed', 'cancelled')),
  "attempt" integer not null default 0,
  "interruptions" integer not null default 0,
  "lease_id" uuid,
  "lease_expires_at" timestamptz,
  "lease_owner" text collate "C",
  "due_at" timestamptz,
  "announced_at" timestamptz,
  "progress" jsonb,
  "result" jsonb,
  "error" jsonb,
  "created_at" timestamptz not null default now(),
  "started_at" timestamptz,
  "finished_at" timestamptz,
  "is_watched" boolean not null default false,
  "timed_out_at" timestamptz,
  "parked_at" timestamptz,
  "from_run" integer,
  "is_windowed" boolean not null default false,
  "waiting_for" jsonb,
  "is_limited" boolean not null default false,
  "held_for" text collate "C",
  primary key ("job_id", "run", "task_id"),
  foreign key ("job_id", "run", "stage") references "app"."stages" on delete cascade
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

create index if not exists "tasks_open" on "app"."tasks" ("job_id", "run", "stage", "task_id") where status in ('pending', 'queued', 'processing', 'pending_retry');

create index if not exists "tasks_completed" on "app"."tasks" ("job_id", "run", "stage", "task_index") where status in ('completed');

create index if not exists "tasks_failed" on "app"."tasks" ("job_id", "run", "stage", "task_index") where status in ('failed');

create index if not exists "tasks_watched" on "app"."tasks" ("job_id", "run", "stage") where "is_watched";

create index if not exists "tasks_leased" on "app"."tasks" ("lease_expires_at") where status in ('processing');

create index if not exists "tasks_unannounced" on "app"."tasks" ("created_at") where status in ('pending') and not "is_windowed";

create index if not exists "tasks_due" on "app"."tasks" ("due_at") where status in ('pending_retry');

create index if not exists "tasks_parked" on "app"."tasks" ("parked_at") where "parked_at" is not null;

create table if not exists "app"."idempotency_keys" (
  "job_id" text collate "C" not null,
  "idempotency_key" text collate "C" not null,
  "payload_hash" text collate "C" not null,
  "created_at" timestamptz not null default now(),
  primary key ("job_id", "idempotency_key"),
  foreign key ("job_id") references "app"."jobs" on delete cascade
);

create index if not exists "idempotency_keys_by_key" on "app"."idempotency_keys" ("idempotency_key");

create table if not exists "app"."job_events" (
  "job_id" text collate "C" not null,
  "event_id" bigint generated always as identity,
  "run" integer not null,
  "stage" integer,
  "task_id" text collate "C",
  "event" text collate "C" not null,
  "detail" jsonb not null default '{}',
  "at" timestamptz not null,
  primary key ("job_id", "event_id"),
  foreign key ("job_id") references "app"."jobs" on delete cascade
);

create table if not exists "app"."audit_log" (
  "audit_id" bigint generated always as identity,
  "job_id" text collate "C" not null,
  "action" text collate "C" not null,
  "actor" text collate "C",
  "reason" text collate "C",
  "detail" jsonb not null default '{}',
  "at" timestamptz not null,
  primary key ("job_id", "audit_id")
);

create index if not exists "audit_log_in_order" on "app"."audit_log" ("audit_id");

create index if not exists "audit_log_by_age" on "app"."audit_log" ("at");

create table if not exists "app"."dead_letters" (
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

create unique index if not exists "dead_letters_once" on "app"."dead_letters" ("job_id", "queue", "message_id", "sequence_number", "enqueued_at");

create index if not exists "dead_letters_of_task" on "app"."dead_letters" ("job_id", "run", "stage", "task_id");

create index if not exists "dead_letters_by_age" on "app"."dead_letters" ("dead_letter_id");

create index if not exists "dead_letters_by_receipt" on "app"."dead_letters" ("received_at");

create table if not exists "app"."schedules" (
  "name" text collate "C" not null,
  "job_type" text collate "C" not null,
  "parameters" jsonb not null default '{}',
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
  "last_change" jsonb not null default '{}',
  "created_at" timestamptz not null default now(),
  "updated_at" timestamptz not null default now(),
  primary key ("name")
);

create index if not exists "schedules_by_tick" on "app"."schedules" ("next_tick_at");

create table if not exists "app"."schedule_ticks" (
  "schedule" text collate "C" not null,
  "tick_at" timestamptz not null,
  "until_at" timestamptz,
  "is_manual" boolean not null default false,
  "status" text not null check ("status" in ('waiting', 'due', 'submitted', 'skipped', 'failed')),
  "reason" text collate "C",
  "detail" text collate "C",
  "job_type" text collate "C" not null,
  "parameters" jsonb not null default '{}',
  "submission_key" text collate "C" not null,
  "submitted_job_id" text collate "C",
  "attempt" integer not null default 0,
  "held_until" timestamptz,
  "actor" text collate "C",
  "created_at" timestamptz not null default now(),
  "decided_at" timestamptz,
  primary key ("schedule", "tick_at"),
  foreign key ("schedule") references "app"."schedules" on delete cascade
);

create index if not exists "schedule_ticks_open" on "app"."schedule_ticks" ("tick_at", "schedule") where status in ('waiting', 'due');

create index if not exists "schedule_ticks_by_age" on "app"."schedule_ticks" ("decided_at");

create table if not exists "app"."webhooks" (
  "name" text collate "C" not null,
  "url" text collate "C",
  "url_setting" text collate "C",
  "events" text[] not null,
  "job_types" text[] not null,
  "tags" jsonb,
  "failed_tasks" integer not null default 1,
  "stalled_seconds" integer not null default 1800,
  "is_paused" boolean not null default false,
  "secret_setting" text collate "C",
  "secret_seed" text collate "C",
  "former_seed" text collate "C",
  "former_until" timestamptz,
  "description" text collate "C",
  "revision" integer not null default 1,
  "last_change" jsonb not null default '{}',
  "created_at" timestamptz not null default now(),
  "updated_at" timestamptz not null default now(),
  primary key ("name")
);

create table if not exists "app"."webhook_deliveries" (
  "webhook" text collate "C" not null,
  "delivery_id" text collate "C" not null,
  "event" text not null check ("event" in ('job.completed', 'job.completed_with_errors', 'job.failed', 'job.cancelled', 'job.failing', 'job.stalled', 'schedule.missed', 'schedule.failed', 'webhook.test')),
  "subject" text collate "C" not null,
  "data" jsonb not null default '{}',
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

create index if not exists "webhook_deliveries_due" on "app"."webhook_deliveries" ("webhook", "due_at") where status in ('pending');

create index if not exists "webhook_deliveries_held" on "app"."webhook_deliveries" ("webhook", "held_until") where "held_until" is not null;

create index if not exists "webhook_deliveries_by_age" on "app"."webhook_deliveries" ("webhook", "created_at", "delivery_id");

create index if not exists "webhook_deliveries_settled" on "app"."webhook_deliveries" ("settled_at") where "settled_at" is not null;

create table if not exists "app"."app_instances" (
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

create table if not exists "app"."limits" (
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

create index if not exists "limits_by_use" on "app"."limits" ("used_at");

create table if not exists "app"."limit_places" (
  "job_id" text collate "C" not null,
  "run" integer not null,
  "task_id" text collate "C" not null,
  "limit_name" text collate "C" not null,
  "stage" integer not null,
  "has_begun" boolean not null,
  "ends_at" timestamptz,
  primary key ("job_id", "run", "task_id", "limit_name")
) with (autovacuum_vacuum_scale_factor = 0.02);

create index if not exists "limit_places_by_limit" on "app"."limit_places" ("limit_name", "ends_at");

create table if not exists "app"."limit_starts" (
  "limit_name" text collate "C" not null,
  "ends_at" timestamptz not null,
  "count" integer not null,
  primary key ("limit_name", "ends_at")
);

create table if not exists "app"."limit_waiters" (
  "job_id" text collate "C" not null,
  "run" integer not null,
  "stage" integer not null,
  "limit_name" text collate "C" not null,
  "turn" double precision not null,
  primary key ("job_id", "run", "stage")
);

create index if not exists "limit_waiters_in_turn" on "app"."limit_waiters" ("limit_name", "turn");

-- Audit: who did what to which job, and why. The rows outlive their jobs; prune_audit deletes them by age.

-- Writes down what somebody did, in the transaction that does it; p_job_id is empty for an action on many. Locks: none but the new row's.
create or replace function "app".record_audit(
  p_action text, p_job_id text, p_actor text, p_reason text, p_detail jsonb
) returns void
language plpgsql as $$
begin
  insert into "app".audit_log (action, job_id, actor, reason, detail, at)
  values (p_action, p_job_id, p_actor, p_reason, coalesce(jsonb_strip_nulls(p_detail), jsonb_build_object()),
    "app".clock());
  if not found then
    perform "app".report_left_out('audit_log');
  end if;
end $$;

-- Deletes up to p_limit rows that are older than p_older_than_seconds; returns how many.
-- Locks: rows of the log; those that others hold are skipped.
create or replace function "app".prune_audit(p_older_than_seconds double precision, p_limit integer) returns integer
language plpgsql as $$
declare
  v_count integer;
begin
  delete from "app".audit_log a
  where a.ctid = any (array(
    select o.ctid from "app".audit_log o
    where o.at < "app".clock() - p_older_than_seconds * interval '1 second'
    order by o.at limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;

comment on function "app"."record_audit"(p_action text, p_job_id text, p_actor text, p_reason text, p_detail jsonb) is 'Writes down what somebody did, in the transaction that does it; p_job_id is empty for an action on many.';
comment on function "app"."prune_audit"(p_older_than_seconds double precision, p_limit integer) is 'Deletes up to p_limit rows that are older than p_older_than_seconds; returns how many.';

-- The clock of the schema: every time that decides something is read here.

-- The clock that decides leases and due times. Tests turn it: set app.fake_now = '2026-01-01 00:00+00'.
create or replace function "app".clock() returns timestamptz
language sql stable as $$
  select coalesce(nullif(current_setting('app.fake_now', true), '')::timestamptz, clock_timestamp())
$$;

-- How long a lease of this very step lasts: not above zero once it has run out; null where there is none, or where it was
-- counted as an interruption or given up.
create or replace function "app".step_lease_seconds(
  p_lease jsonb, p_run integer, p_stage integer, p_status text, p_attempt integer
) returns double precision
language sql stable strict as $$
  select case
    when p_lease ->> 'has_ended' is null
      and p_lease -> 'at' = jsonb_build_object('run', p_run, 'stage', p_stage, 'status', p_status, 'attempt', p_attempt)
    then extract(epoch from (p_lease ->> 'expires_at')::timestamptz - "app".clock())::double precision
  end
$$;

comment on function "app"."clock"() is 'The clock that decides leases and due times.';
comment on function "app"."step_lease_seconds"(p_lease jsonb, p_run integer, p_stage integer, p_status text, p_attempt integer) is 'How long a lease of this very step lasts: not above zero once it has run out; null where there is none, or where it was counted as an interruption or given up.';

-- Errors: the one shape in which they are stored, and the fingerprint by which they are grouped.

-- An error as rows keep it: every error that SQL writes is made here.
-- Its fields are those of `Failure.to_json` in core/errors.py, which writes the errors of handlers and planners. The
-- caller may add fields that go with its type.
create or replace function "app".stored_error(
  p_type text, p_message text, p_retryable boolean, p_attempt integer, p_at timestamptz
) returns jsonb
language sql stable as $$
  select jsonb_build_object('type', p_type, 'message', p_message, 'retryable', p_retryable, 'attempt', p_attempt,
    'traceback', null, 'at', p_at)
$$;

-- The error of a task's attempt, as a handler's process gave it, with the number of that attempt.
-- `attempt` of a task's error means the same wherever it is stored: the row's `attempt`, interrupted ones counted.
create or replace function "app".error_of_attempt(p_error jsonb, p_attempt integer) returns jsonb
language sql immutable as $$
  select p_error || jsonb_build_object('attempt', p_attempt)
$$;

-- The error that a cancelled job's row keeps.
create or replace function "app".cancelled_error(p_reason text) returns jsonb
language sql stable as $$
  select "app".stored_error('Cancelled', coalesce(p_reason, 'cancelled'), false, null, "app".clock())
$$;

-- A message without what distinguishes one occurrence of an error from another. Its first 500 characters decide.
create or replace function "app".normalised_message(p_message text) returns text
language sql immutable parallel safe as $$
  select regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
    left(p_message, 500),
    -- Paths and URLs, in quotes (where they may hold spaces) or bare.
    '''[^'']*[/\\][^'']*''|"[^"]*[/\\][^"]*"|[^\s''"(),;]*[/\\][^\s''"(),;]*', '.', 'g'),
    -- Names of files, in quotes.
    '''[^'']*\.[A-Za-z][A-Za-z0-9]{1,4}''|"[^"]*\.[A-Za-z][A-Za-z0-9]{1,4}"', '.', 'g'),
    -- Words with a digit in them: numbers, uuids, hashes, times, tile_12. Quotes around one go with it.
    '[''"]?[\w.:+-]*[0-9][\w.:+-]*[''"]?', '.', 'g'),
    -- Hexadecimal digits that happen to be letters alone.
    '\m[a-f]{8,}\M', '.', 'g'),
    -- A list of such things is one, however long.
    '\.([\s,;:-]+\.)+', '.', 'g'),
    '\s+', ' ', 'g')
$$;

-- The group of an error: 16 hexadecimal digits, the same for errors that differ in numbers, ids and paths alone.
-- It is computed when failures are looked at, so that a success costs nothing for it and old rows have one too.
create or replace function "app".error_fingerprint(p_type text, p_message text) returns text
language sql immutable parallel safe as $$
  select left(encode(sha256(convert_to(
    coalesce(p_type, '') || ':' || "app".normalised_message(coalesce(p_message, '')), 'UTF8')), 'hex'), 16)
$$;

-- How often, for people: once, or a number of times.
create or replace function "app".times_in_words(p_count bigint) returns text
language sql immutable parallel safe as $$
  select case when p_count = 1 then 'once' else format('%s times', p_count) end
$$;

-- Raises CM006: rows that were to be inserted or changed are not, so a trigger or a rule that is not ours left them out.
-- What relies on them would go wrong later, and silently.
create or replace function "app".report_left_out(p_table text) returns void
language plpgsql as $$
begin
  raise exception 'expected all rows to be written, found fewer: a trigger or a rule of the table % keeps rows out; drop it',
    p_table using errcode = 'CM006';
end $$;

comment on function "app"."stored_error"(p_type text, p_message text, p_retryable boolean, p_attempt integer, p_at timestamptz) is 'An error as rows keep it: every error that SQL writes is made here.';
comment on function "app"."error_of_attempt"(p_error jsonb, p_attempt integer) is 'The error of a task''s attempt, as a handler''s process gave it, with the number of that attempt.';
comment on function "app"."cancelled_error"(p_reason text) is 'The error that a cancelled job''s row keeps.';
comment on function "app"."normalised_message"(p_message text) is 'A message without what distinguishes one occurrence of an error from another.';
comment on function "app"."error_fingerprint"(p_type text, p_message text) is 'The group of an error: 16 hexadecimal digits, the same for errors that differ in numbers, ids and paths alone.';
comment on function "app"."times_in_words"(p_count bigint) is 'How often, for people: once, or a number of times.';
comment on function "app"."report_left_out"(p_table text) is 'Raises CM006: rows that were to be inserted or changed are not, so a trigger or a rule that is not ours left them out.';

-- Events: the job's timeline. A task's plain success has none, since its own row shows it.

-- Writes one line of the job's timeline. Raises CM006 where it is left out. Locks: none but the new row's.
create or replace function "app".record_event(
  p_job_id text, p_run integer, p_stage integer, p_task_id text, p_event text, p_detail jsonb
) returns void
language plpgsql as $$
begin
  insert into "app".job_events (job_id, run, stage, task_id, event, detail, at)
  values (p_job_id, p_run, p_stage, p_task_id, p_event, coalesce(p_detail, jsonb_build_object()), "app".clock());
  if not found then
    perform "app".report_left_out('job_events');
  end if;
end $$;

comment on function "app"."record_event"(p_job_id text, p_run integer, p_stage integer, p_task_id text, p_event text, p_detail jsonb) is 'Writes one line of the job''s timeline.';

-- The advisory locks of the schema: each key is made here and nowhere else. All are held until their transaction ends.
-- Order in every function: a window's lock, those of limits, task rows by id, the stage's lock, then the rows of the stage
-- and of the job. An idempotency key's lock comes before a job row; nobody who holds a job row waits for a key.
-- docs/explanation/locking.md shows how shared and exclusive holders of a stage's lock go together.

-- The ids that name task rows, each once, in the order in which the rows are locked.
-- Wherever ids name rows, these are joined laterally with one look for each, by the whole key, and a look that takes no
-- lock ends with `offset 0`: neither is drawn into the join, so every version has this plan, with statistics or
-- without. `task_id = any (ids)` is not used: before PostgreSQL 17 an index takes it as a filter where rows are wanted
-- in order, and reads the whole stage.
-- A row that is locked is then written by its place (`ctid`), which no other transaction can change.
create or replace function "app".ids_in_order(p_task_ids text[]) returns table (id text)
language sql immutable as $$
  select distinct n.id collate "C" from unnest(p_task_ids) as n(id) order by 1
$$;

-- The places of task rows that the caller has locked, after it has written them.
create or replace function "app".places_of_tasks(p_job_id text, p_run integer, p_task_ids text[]) returns tid[]
language plpgsql stable set enable_seqscan = off as $$
begin
  return (
    select array_agg(w.place) from "app".ids_in_order(p_task_ids) as named
    cross join lateral (
      select t.ctid as place from "app".tasks t
      where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id offset 0
    ) w
  );
end $$;

-- The key of a stage's advisory lock. Numbers are cast: where somebody made an implicit cast to text, as people do who
-- come from other databases, `text || integer` means two operators, and no statement with it runs any more.
create or replace function "app".stage_lock_key(p_job_id text, p_run integer, p_stage integer) returns bigint
language sql stable as $$
  select hashtextextended(p_job_id || ':' || p_run::text || ':' || p_stage::text, 0)
$$;

-- Raises CM005: the transaction is not read committed.
-- A transaction that has waited for a stage's lock decides by what others have committed meanwhile, which a snapshot of
-- its beginning does not show. Callers test the setting themselves, since a call costs more than the test.
create or replace function "app".refuse_isolation() returns void
language plpgsql as $$
begin
  raise exception 'expected a transaction at read committed, found %', current_setting('transaction_isolation')
    using errcode = 'CM005', hint = 'begin it with: begin isolation level read committed';
end $$;

-- Serializes decisions about one stage of one run: waits for all who share its lock, and they wait for it.
-- No transaction goes from shared to exclusive. Raises CM005.
create or replace function "app".lock_stage(p_job_id text, p_run integer, p_stage integer) returns void
language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform "app".refuse_isolation();
  end if;
  perform pg_advisory_xact_lock("app".stage_lock_key(p_job_id, p_run, p_stage));
end $$;

-- Holds off decisions about a stage, side by side with others who share its lock. Raises CM005.
create or replace function "app".share_stage(p_job_id text, p_run integer, p_stage integer) returns void
language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform "app".refuse_isolation();
  end if;
  perform pg_advisory_xact_lock_shared("app".stage_lock_key(p_job_id, p_run, p_stage));
end $$;

-- Whether tasks of a stage may wait for an attempt, now and until this transaction ends. A function that lets tasks wait
-- again asks this when it has locked them: the end of a job skips rows that others hold, and no message may come for them.
-- p_decides: the transaction may end tasks, and with them the stage; else it shares the stage's lock.
create or replace function "app".keep_stage_open(p_job_id text, p_run integer, p_stage integer, p_decides boolean)
returns boolean
language plpgsql as $$
begin
  if p_decides then
    perform "app".lock_stage(p_job_id, p_run, p_stage);
  else
    perform "app".share_stage(p_job_id, p_run, p_stage);
  end if;
  return exists (
    select from "app".stages s join "app".jobs j on j.job_id = s.job_id
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and (j.status = 'processing' and j.run = s.run and s.status = 'processing')
  );
end $$;

-- Takes a stage's lock without waiting: false when another transaction has it.
create or replace function "app".try_lock_stage(p_job_id text, p_run integer, p_stage integer) returns boolean
language plpgsql as $$
begin
  return pg_try_advisory_xact_lock("app".stage_lock_key(p_job_id, p_run, p_stage));
end $$;

-- Serializes those who take tasks into a stage's window. It is taken first, before any row, and waits for nobody who
-- holds another lock.
create or replace function "app".lock_window(p_job_id text, p_run integer, p_stage integer) returns void
language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform "app".refuse_isolation();
  end if;
  perform pg_advisory_xact_lock(hashtextextended('window:' || p_job_id || ':' || p_run::text || ':' || p_stage::text, 0));
end $$;

-- Serializes claims under limits, and those who announce for them: all of a stage's at once, in one order. They are
-- taken before any row, after a window's. Raises CM005.
create or replace function "app".lock_limits(p_names text[]) returns void
language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform "app".refuse_isolation();
  end if;
  perform pg_advisory_xact_lock(k.key) from (
    select distinct hashtextextended('limit:' || n.name, 0) as key from unnest(p_names) as n(name) order by 1
  ) k;
end $$;

-- Serializes submissions that carry the same idempotency key.
create or replace function "app".lock_idempotency_key(p_key text) returns void
language plpgsql as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('idempotency-key:' || p_key, 0));
end $$;

-- Whether this statement has waited long, as for a lock that somebody has on a whole table: what it read of the clock
-- when it began is old.
create or replace function "app".has_waited() returns boolean
language sql volatile as $$
  select clock_timestamp() > statement_timestamp() + interval '1 second'
$$;

comment on function "app"."ids_in_order"(p_task_ids text[]) is 'The ids that name task rows, each once, in the order in which the rows are locked.';
comment on function "app"."places_of_tasks"(p_job_id text, p_run integer, p_task_ids text[]) is 'The places of task rows that the caller has locked, after it has written them.';
comment on function "app"."stage_lock_key"(p_job_id text, p_run integer, p_stage integer) is 'The key of a stage''s advisory lock.';
comment on function "app"."refuse_isolation"() is 'Raises CM005: the transaction is not read committed.';
comment on function "app"."lock_stage"(p_job_id text, p_run integer, p_stage integer) is 'Serializes decisions about one stage of one run: waits for all who share its lock, and they wait for it.';
comment on function "app"."share_stage"(p_job_id text, p_run integer, p_stage integer) is 'Holds off decisions about a stage, side by side with others who share its lock.';
comment on function "app"."keep_stage_open"(p_job_id text, p_run integer, p_stage integer, p_decides boolean) is 'Whether tasks of a stage may wait for an attempt, now and until this transaction ends.';
comment on function "app"."try_lock_stage"(p_job_id text, p_run integer, p_stage integer) is 'Takes a stage''s lock without waiting: false when another transaction has it.';
comment on function "app"."lock_window"(p_job_id text, p_run integer, p_stage integer) is 'Serializes those who take tasks into a stage''s window.';
comment on function "app"."lock_limits"(p_names text[]) is 'Serializes claims under limits, and those who announce for them: all of a stage''s at once, in one order.';
comment on function "app"."lock_idempotency_key"(p_key text) is 'Serializes submissions that carry the same idempotency key.';
comment on function "app"."has_waited"() is 'Whether this statement has waited long, as for a lock that somebody has on a whole table: what it read of the clock when it began is old.';

-- Advance: whether a stage has ended is decided here, and its job advances to the next stage or to its own summary.

-- Decides what to do after tasks of a stage ended in this transaction: whatever ends tasks calls it, be it an outcome, a
-- deadline, a cancel, too many interruptions, a postponed task whose time ran out, or the janitor.
-- It counts their failures, applies the failure policy, and ends the stage if no task is open. Returns whether this
-- transaction ended it. p_was_open: the caller saw the stage open, and has written results that count only then.
-- Locks: the stage, then the job row; it never waits for a task row after them.
-- Raises CM001 when p_was_open and the stage ended between the look at it and its lock: call again.
create or replace function "app".check_stage(
  p_job_id text, p_run integer, p_stage integer, p_was_open boolean, p_failed_ids text[]
) returns boolean
language plpgsql set enable_seqscan = off as $$
declare
  v_stage record;
  v_task record;
  v_reason text;
begin
  perform "app".lock_stage(p_job_id, p_run, p_stage);
  select s.status = 'processing' and j.run = p_run as runs, j.status = 'processing' as job_runs,
         j.status = 'cancelling' as is_cancelling, s.settings -> 'failure' as policy, s.failed_count, s.expected_count
  into v_stage
  from "app".stages s join "app".jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;

  if p_was_open and not (v_stage.runs and v_stage.job_runs) then
    raise exception 'stage % of job % run % ended meanwhile', p_stage, p_job_id, p_run using errcode = 'CM001';
  end if;
  if not v_stage.runs then
    -- Rows that others had locked when the stage ended.
    perform "app".cancel_open_tasks(p_job_id, p_run, p_stage, true);
    return false;
  end if;
  if v_stage.is_cancelling then
    perform "app".cancel_open_tasks(p_job_id, p_run, p_stage, false);
  end if;

  if p_failed_ids is not null then
    update "app".stages s set failed_count = s.failed_count + cardinality(p_failed_ids)
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage
    returning s.failed_count into v_stage.failed_count;
    if not found then
      perform "app".report_left_out('stages');
    end if;
    for v_task in
      select named.id as task_id, w.error from "app".ids_in_order(p_failed_ids) as named
      cross join lateral (
        select t.error from "app".tasks t
        where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id offset 0
      ) w
    loop
      perform "app".record_event(p_job_id, p_run, p_stage, v_task.task_id, 'task_failed', v_task.error);
      v_reason := concat_ws(': ', v_task.task_id, v_task.error ->> 'type', v_task.error ->> 'message');
    end loop;
    perform "app".note_failed_tasks(p_job_id, p_run, p_stage, v_stage.failed_count - cardinality(p_failed_ids),
      v_stage.failed_count);
    if "app".is_over_failure_budget(v_stage.policy, v_stage.failed_count, v_stage.expected_count) then
      perform "app".end_job(p_job_id, p_run, 'failed', "app".stored_error(
        'StageFailed', format('stage %s failed%s; last failed task %s', p_stage,
          "app".words_of_budget(v_stage.policy, v_stage.failed_count, v_stage.expected_count), v_reason),
        false, null, "app".clock()
      ) || jsonb_build_object('stage', p_stage, 'failed_count', v_stage.failed_count));
      return true;
    end if;
  end if;

  if "app".ensure_watch(p_job_id, p_run, p_stage) then
    return false;
  end if;
  if v_stage.is_cancelling then
    perform "app".end_job(p_job_id, p_run, 'cancelled', null);
  else
    perform "app".close_stage(p_job_id, p_run, p_stage);
  end if;
  return true;
end $$;

-- Whether this number of failed tasks fails the stage.
create or replace function "app".is_over_failure_budget(
  p_policy jsonb, p_failed_count integer, p_expected_count integer
) returns boolean
language sql immutable as $$
  select case p_policy ->> 'on_failure'
    when 'continue' then false
    when 'tolerate' then
      p_failed_count > coalesce((p_policy ->> 'max_failed')::integer, p_failed_count)
      or p_failed_count * 100.0 / greatest(p_expected_count, 1)
        > coalesce((p_policy ->> 'max_failed_percent')::double precision, 100)
    else p_failed_count > 0
  end
$$;

-- How far the failed tasks are over what the policy tolerates, to go on in a sentence; empty where it tolerates none.
create or replace function "app".words_of_budget(
  p_policy jsonb, p_failed_count integer, p_expected_count integer
) returns text
language sql immutable as $$
  select case when p_policy ->> 'on_failure' = 'tolerate' then
    format(': %s of %s tasks failed, and at most %s may', p_failed_count, p_expected_count,
      concat_ws(' or ', p_policy ->> 'max_failed', (p_policy ->> 'max_failed_percent')::double precision::text || ' %'))
  else '' end
$$;

-- Ends a stage whose tasks have all ended and advances its job, in the caller's transaction.
-- Returns the job's new status; null when the stage does not run.
-- Fence: the stage runs. Locks: the stage's lock is held by the caller; then the job row.
create or replace function "app".close_stage(p_job_id text, p_run integer, p_stage integer) returns text
language plpgsql as $$
declare
  v_status text;
begin
  update "app".stages s
  set status = case when s.failed_count > 0 then 'completed_with_errors' else 'completed' end,
      finished_at = "app".clock()
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.status = 'processing'
  returning s.status into v_status;
  if not found then
    return null;
  end if;
  perform "app".record_event(p_job_id, p_run, p_stage, null, 'stage_' || v_status, null);
  return "app".advance_job_stage(p_job_id, p_run, p_stage);
end $$;

-- Writes the next stage's row, or makes the job finalizing after its last stage.
-- It may be called again at any time: it acts only while the job is still at a stage that has completed. Returns the
-- job's new status, or null.
-- Fence: the job runs at that stage of that run. Locks: the job row.
create or replace function "app".advance_job_stage(p_job_id text, p_run integer, p_stage integer) returns text
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
  v_job record;
begin
  update "app".jobs j
  set status = case when j.stage < j.total_stages then 'queued' else 'finalizing' end,
      stage = least(j.stage + 1, j.total_stages), announced_at = null, attempt = 0, due_at = null,
      updated_at = v_now
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = 'processing'
    and exists (
      select 1 from "app".stages s
      where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage
        and s.status in ('completed', 'completed_with_errors')
    )
  returning j.status, j.stage, j.definition into v_job;
  if not found then
    return null;
  end if;
  if v_job.status = 'queued' then
    insert into "app".stages (job_id, run, stage, settings, created_at)
    values (p_job_id, p_run, v_job.stage, v_job.definition -> 'stages' -> (v_job.stage - 1), v_now);
    if not found then
      perform "app".report_left_out('stages');
    end if;
  end if;
  return v_job.status;
end $$;

comment on function "app"."check_stage"(p_job_id text, p_run integer, p_stage integer, p_was_open boolean, p_failed_ids text[]) is 'Decides what to do after tasks of a stage ended in this transaction: whatever ends tasks calls it, be it an outcome, a deadline, a cancel, too many interruptions, a postponed task whose time ran out, or the janitor.';
comment on function "app"."is_over_failure_budget"(p_policy jsonb, p_failed_count integer, p_expected_count integer) is 'Whether this number of failed tasks fails the stage.';
comment on function "app"."words_of_budget"(p_policy jsonb, p_failed_count integer, p_expected_count integer) is 'How far the failed tasks are over what the policy tolerates, to go on in a sentence; empty where it tolerates none.';
comment on function "app"."close_stage"(p_job_id text, p_run integer, p_stage integer) is 'Ends a stage whose tasks have all ended and advances its job, in the caller''s transaction.';
comment on function "app"."advance_job_stage"(p_job_id text, p_run integer, p_stage integer) is 'Writes the next stage''s row, or makes the job finalizing after its last stage.';

-- Announcements: which rows have a message, and which need one again. They commit asynchronously: if a crash of the
-- server undoes one, a message comes that does nothing.

-- Notes that the messages for these tasks are confirmed: pending becomes queued.
-- Rows that changed meanwhile keep their status, but one that waits remembers the later message, so that it is not
-- taken for lost while that message waits. One that went back into the line meanwhile stays there. Returns how many rows
-- changed.
-- Locks: task rows by id.
create or replace function "app".mark_tasks_announced(p_job_id text, p_run integer, p_task_ids text[])
returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_places tid[];
  v_count integer;
begin
  perform set_config('synchronous_commit', 'off', true);
  select array_agg(o.place) into v_places from "app".ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id
      and (t.status in ('pending', 'queued', 'pending_retry')) is not false and not (t.status = 'pending' and t.announced_at is not null)
    for update
  ) o;
  update "app".tasks t
  set status = case t.status when 'pending' then 'queued' else t.status end, announced_at = v_now,
      due_at = case t.status when 'pending' then null else t.due_at end
  where t.ctid = any (v_places);
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- Notes that the messages for tasks that take_next_tasks returned are confirmed.
-- They were pending. One that is not has been begun meanwhile: if its attempt failed, it waits for another one in line,
-- and would not be taken there if this message counted for it. Returns how many rows changed.
-- Locks: task rows by id.
create or replace function "app".mark_taken_tasks_announced(p_job_id text, p_run integer, p_task_ids text[])
returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_places tid[];
  v_count integer;
begin
  perform set_config('synchronous_commit', 'off', true);
  select array_agg(o.place) into v_places from "app".ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id
      and t.status is not distinct from 'pending' and t.announced_at is null
    for update
  ) o;
  update "app".tasks t set status = 'queued', announced_at = v_now, due_at = null
  where t.ctid = any (v_places);
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- Notes that the message for the job's step is confirmed.
-- Fence: the job waits for that step of that run. Locks: the job row.
create or replace function "app".mark_job_announced(p_job_id text, p_run integer, p_stage integer) returns boolean
language plpgsql set plan_cache_mode = force_generic_plan as $$
begin
  perform set_config('synchronous_commit', 'off', true);
  update "app".jobs j set announced_at = "app".clock()
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status in ('queued', 'finalizing');
  return found;
end $$;

-- Ends the hold of tasks that a find has for the caller, whose messages no queue took.
-- The next sweep finds them.
-- Fence: they are pending. Locks: task rows by id.
create or replace function "app".let_go_of_tasks(p_job_id text, p_run integer, p_task_ids text[]) returns void
language plpgsql set enable_seqscan = off as $$
declare
  v_places tid[];
begin
  select array_agg(o.place) into v_places from "app".ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.status is not distinct from 'pending'
    for update
  ) o;
  update "app".tasks t set due_at = null where t.ctid = any (v_places);
end $$;

-- Ends the hold of a job that a find has for the caller, whose message no queue took.
-- Fence: the attempt, so that a step which is to be retried later keeps its time. Locks: the job row.
create or replace function "app".let_go_of_job(p_job_id text, p_run integer, p_attempt integer) returns void
language plpgsql as $$
begin
  update "app".jobs j set due_at = null
  where j.job_id = p_job_id and j.run = p_run and j.attempt = p_attempt and j.status in ('queued', 'finalizing')
    and j.announced_at is null;
end $$;

comment on function "app"."mark_tasks_announced"(p_job_id text, p_run integer, p_task_ids text[]) is 'Notes that the messages for these tasks are confirmed: pending becomes queued.';
comment on function "app"."mark_taken_tasks_announced"(p_job_id text, p_run integer, p_task_ids text[]) is 'Notes that the messages for tasks that take_next_tasks returned are confirmed.';
comment on function "app"."mark_job_announced"(p_job_id text, p_run integer, p_stage integer) is 'Notes that the message for the job''s step is confirmed.';
comment on function "app"."let_go_of_tasks"(p_job_id text, p_run integer, p_task_ids text[]) is 'Ends the hold of tasks that a find has for the caller, whose messages no queue took.';
comment on function "app"."let_go_of_job"(p_job_id text, p_run integer, p_attempt integer) is 'Ends the hold of a job that a find has for the caller, whose message no queue took.';

-- The processes of all apps, as they register themselves. Nothing decides by these rows.

-- Writes that a process is here, and what it can do. One that said that it ends does not come back.
-- Fence: ended_at. Locks: the process's own row, which nobody else writes while it lives.
create or replace function "app".record_app_instance(
  p_instance text, p_app_name text, p_mode text, p_version text, p_release text, p_queues text[], p_task_types text[],
  p_job_types text[], p_slots integer
) returns void
language sql as $$
  insert into "app".app_instances as a (
    instance, app_name, mode, version, release, queues, task_types, job_types, slots, started_at, seen_at
  ) values (
    p_instance, p_app_name, p_mode, p_version, p_release, p_queues, p_task_types, p_job_types, p_slots,
    "app".clock(), "app".clock()
  )
  on conflict (instance) do update set seen_at = excluded.seen_at where a.ended_at is null
$$;

-- Writes that a process ends, in order.
-- Fence: ended_at. Locks: the process's own row.
create or replace function "app".end_app_instance(p_instance text) returns void
language sql as $$
  update "app".app_instances a set ended_at = "app".clock() where a.instance = p_instance and a.ended_at is null
$$;

-- Deletes up to p_limit rows of processes that were last heard of longer ago than p_older_than_seconds.
-- Returns how many it deleted. Locks: those rows; one that another transaction holds is skipped.
create or replace function "app".prune_app_instances(p_older_than_seconds double precision, p_limit integer)
returns integer
language plpgsql as $$
declare
  v_count integer;
begin
  delete from "app".app_instances a
  where a.ctid = any (array(
    select o.ctid from "app".app_instances o
    where o.seen_at < "app".clock() - p_older_than_seconds * interval '1 second'
    order by o.seen_at limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;

comment on function "app"."record_app_instance"(p_instance text, p_app_name text, p_mode text, p_version text, p_release text, p_queues text[], p_task_types text[], p_job_types text[], p_slots integer) is 'Writes that a process is here, and what it can do.';
comment on function "app"."end_app_instance"(p_instance text) is 'Writes that a process ends, in order.';
comment on function "app"."prune_app_instances"(p_older_than_seconds double precision, p_limit integer) is 'Deletes up to p_limit rows of processes that were last heard of longer ago than p_older_than_seconds.';

-- Claims: an attempt gets its lease. One task takes a short way (claim_task), all others claim_tasks.

-- Leases tasks to the caller and returns one row per id, the claimed ones first, each with its outcome.
-- Outcome: claimed; duplicate (leased, or ended); not_due (to be retried later); paused (the job is: the task is
-- parked, and announced again after the pause); held (a limit of its stage has no place: it waits without a message);
-- closed (its stage or job does not run); expired (a deadline has passed, so nothing is begun: the caller lets
-- enforce_deadlines end it); missing. The commit of a claim is not waited for: one that a crash undoes is fenced by its
-- random lease and is claimed again. The same call once more, after the answer was lost with its connection, finds its
-- tasks claimed under its lease. The commit of parking is waited for, since the message is gone when this returns.
-- So is that of a claim under limits, which may be exceeded if it is undone.
-- Fence: the status.
-- Locks: those of the stage's limits; task rows by id (waited for: an announcer may hold them for a moment); in a stage
-- or job that was ended or is being cancelled, the stage's lock instead, and only if one of these tasks still waits.
create or replace function "app".claim_tasks(
  p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_lease_id uuid, p_owner text
) returns table (
  task_id text, outcome text, attempt integer, interruptions integer, task_type text, task_index integer, name text,
  parameters jsonb, wait_seconds double precision
)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_open boolean;
  v_is_dead boolean;
  v_is_overdue boolean;
  v_is_queue_overdue boolean;
  v_paused boolean;
  v_places tid[];
  v_claimed text[] := array[]::text[];
  v_lease_seconds double precision;
  v_settings jsonb;
  v_limit record;
begin
  if cardinality(p_task_ids) = 1 then
    return query select c.* from "app".claim_task(p_job_id, p_run, p_stage, p_task_ids[1], p_lease_id, p_owner) c;
    if found then
      return;
    end if;
  end if;
  select (j.status = 'processing' and j.run = s.run and s.status = 'processing'),
         j.status in ('cancelling', 'cancelled', 'failed') or s.status in ('cancelled', 'failed'),
         j.paused_at is not null, (s.settings ->> 'lease_seconds')::double precision,
         coalesce(least(j.deadline_at, s.deadline_at) <= v_now, false), coalesce(s.queue_deadline_at <= v_now, false),
         case when s.settings ->> 'limits' is not null then s.settings end
  into v_open, v_is_dead, v_paused, v_lease_seconds, v_is_overdue, v_is_queue_overdue, v_settings
  from "app".stages s join "app".jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;

  if v_open and v_paused then
    select array_agg(w.place) into v_places from "app".ids_in_order(p_task_ids) as named
    cross join lateral (
      select t.ctid as place from "app".tasks t
      where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
        and t.status in ('pending', 'queued', 'pending_retry')
      for update
    ) w;
    update "app".tasks t set parked_at = v_now where t.ctid = any (v_places);
  elsif v_open and not v_is_overdue then
    if v_settings is null then
      perform set_config('synchronous_commit', 'off', true);
    else
      select l.room, l.name into v_limit
      from "app".room_in_limits(v_settings, p_job_id, p_run, p_task_ids, v_now) l;
    end if;
    select coalesce(array_agg(named.id), array[]::text[]), array_agg(w.place) into v_claimed, v_places
    from "app".ids_in_order(p_task_ids) as named
    cross join lateral (
      select t.ctid as place from "app".tasks t
      where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
        and (t.status in ('pending', 'queued') or (t.status = 'pending_retry' and t.due_at <= v_now))
        and not (v_is_queue_overdue and t.attempt = 0)
      for update
    ) w;
    if v_settings is not null then
      if v_limit.room < cardinality(v_claimed) then
        v_limit.room := greatest(v_limit.room, 0);
        perform "app".hold_back_tasks(p_job_id, p_run, p_stage, v_claimed[v_limit.room + 1:],
          v_places[v_limit.room + 1:], v_limit.name);
        v_claimed := v_claimed[:v_limit.room];
        v_places := v_places[:v_limit.room];
      end if;
      perform "app".take_places(v_settings, p_job_id, p_run, p_stage, v_claimed, v_now);
    end if;
    -- What is claimed is answered from the update: a join would look for each row among all ids.
    return query
    update "app".tasks t
    set status = 'processing', attempt = t.attempt + 1, lease_id = p_lease_id, lease_owner = p_owner,
        lease_expires_at = v_now + v_lease_seconds * interval '1 second',
        due_at = null, parked_at = null, started_at = v_now, timed_out_at = null, held_for = null
    where t.ctid = any (v_places)
    returning t.task_id, 'claimed'::text, t.attempt, t.interruptions, t.task_type, t.task_index, t.name, t.parameters,
      0::double precision;
    if "app".has_waited() then
      perform "app".begin_leases_now(v_claimed, array_fill(p_lease_id, array[cardinality(v_claimed)]), true);
    end if;
    if cardinality(v_claimed) = cardinality(p_task_ids) then
      return;
    end if;
  elsif v_is_dead and exists (
    select 1 from unnest(p_task_ids) as named(id)
    cross join lateral (
      select from "app".tasks t
      where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
        and t.status in ('pending', 'queued', 'pending_retry')
      offset 0
    ) w
  ) then
    -- Another transaction had locked such a row when the rest was cancelled. Without one the stage is not read: most
    -- messages of a cancelled job name rows that have ended.
    perform "app".check_stage(p_job_id, p_run, p_stage, false, null);
  end if;

  return query
  select asked.id,
    case
      when t.task_id is null then 'missing'
      when not v_open then 'closed'
      when t.status = 'processing' and t.lease_id = p_lease_id then 'claimed'
      when t.held_for is not null and t.announced_at is null and t.status in ('pending', 'queued', 'pending_retry') then 'held'
      when v_paused and t.status in ('pending', 'queued', 'pending_retry') then 'paused'
      when t.status in ('pending', 'queued', 'pending_retry')
        and (v_is_overdue or (v_is_queue_overdue and t.attempt = 0)) then 'expired'
      when t.status = 'pending_retry' then 'not_due'
      else 'duplicate'
    end,
    t.attempt, t.interruptions, t.task_type, t.task_index, t.name, t.parameters,
    greatest(extract(epoch from t.due_at - v_now), 0)::double precision
  from unnest(p_task_ids) with ordinality as asked(id, place)
  left join lateral (
    select x.* from "app".tasks x
    where x.job_id = p_job_id and x.run = p_run and x.task_id = asked.id and x.stage = p_stage offset 0
  ) t on true
  where asked.id <> all (v_claimed)
  order by asked.place;
end $$;

-- Leases one task that can be claimed, in one statement whose plan is made once.
-- Returns no row, with nothing done, in every other case: claim_tasks finds out which.
-- Fence: the status of task, stage and job. Locks: the task row.
create or replace function "app".claim_task(
  p_job_id text, p_run integer, p_stage integer, p_task_id text, p_lease_id uuid, p_owner text
) returns table (
  task_id text, outcome text, attempt integer, interruptions integer, task_type text, task_index integer, name text,
  parameters jsonb, wait_seconds double precision
)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
begin
  return query
  update "app".tasks t
  set status = 'processing', attempt = t.attempt + 1, lease_id = p_lease_id, lease_owner = p_owner,
      lease_expires_at = v_now + (s.settings ->> 'lease_seconds')::double precision * interval '1 second',
      due_at = null, parked_at = null, started_at = v_now, timed_out_at = null
  from "app".stages s join "app".jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and (j.status = 'processing' and j.run = s.run and s.status = 'processing') and j.paused_at is null
    and (least(j.deadline_at, s.deadline_at) <= v_now) is not true
    and t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_id and t.stage = p_stage
    and (t.status in ('pending', 'queued') or (t.status = 'pending_retry' and t.due_at <= v_now))
    and not (t.attempt = 0 and (s.queue_deadline_at <= v_now) is true) and not t.is_limited
  returning t.task_id, 'claimed'::text, t.attempt, t.interruptions, t.task_type, t.task_index, t.name, t.parameters,
    0::double precision;
  if found then
    perform set_config('synchronous_commit', 'off', true);
    if "app".has_waited() then
      perform "app".begin_leases_now(array[p_task_id], array[p_lease_id], true);
    end if;
  end if;
end $$;

-- Leases tasks that wait in line to a process that has just ended some of their stage: no message names them.
-- At most p_limit, of these types, in order, and none that was tried before. Returns one row for each, fewer if others
-- hold them; none of a stage with limits, max_parallel,
-- or several tasks per message.
-- The rows are locked before the window is looked at: take_next_tasks, which gives them messages, locks them as well.
-- Fence: the status of task, stage and job; the window. Locks: task rows; those that another transaction holds are
-- skipped, so it may be called under a stage's lock.
create or replace function "app".claim_tasks_in_line(
  p_job_id text, p_run integer, p_stage integer, p_task_types text[], p_limit integer, p_lease_id uuid, p_owner text
) returns table (
  task_id text, attempt integer, interruptions integer, task_type text, task_index integer, name text, parameters jsonb
)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_sort = off
set enable_bitmapscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_places tid[];
begin
  select array_agg(n.place) into v_places from (
    select t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ('pending', 'queued', 'processing', 'pending_retry')
      and t.task_id > (
        select s.window_after from "app".stages s
        where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and (coalesce((s.settings ->> 'tasks_per_message')::integer, 1) = 1 and s.settings ->> 'max_parallel' is null and s.settings ->> 'limits' is null)
      )
      and (t.status = 'pending' and (t.due_at is null or t.due_at <= v_now) and t.parked_at is null) and t.attempt = 0 and t.task_type = any (p_task_types)
    order by t.task_id limit p_limit for update skip locked
  ) n;
  if v_places is null then
    return;
  end if;
  return query
  update "app".tasks t
  set status = 'processing', attempt = t.attempt + 1, lease_id = p_lease_id, lease_owner = p_owner,
      lease_expires_at = v_now + (s.settings ->> 'lease_seconds')::double precision * interval '1 second',
      due_at = null, started_at = v_now, timed_out_at = null
  from "app".stages s join "app".jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and (j.status = 'processing' and j.run = s.run and s.status = 'processing') and j.paused_at is null
    and (least(j.deadline_at, s.deadline_at, s.queue_deadline_at) <= v_now) is not true
    and (coalesce((s.settings ->> 'tasks_per_message')::integer, 1) = 1 and s.settings ->> 'max_parallel' is null and s.settings ->> 'limits' is null) and t.ctid = any (v_places) and t.task_id > s.window_after
  returning t.task_id, t.attempt, t.interruptions, t.task_type, t.task_index, t.name, t.parameters;
  if "app".has_waited() then
    perform "app".begin_leases_now(array_agg(o.task_id), array_agg(p_lease_id), true)
    from "app".tasks_of_lease(p_job_id, p_run, p_stage, p_lease_id) o;
  end if;
end $$;

comment on function "app"."claim_tasks"(p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_lease_id uuid, p_owner text) is 'Leases tasks to the caller and returns one row per id, the claimed ones first, each with its outcome.';
comment on function "app"."claim_task"(p_job_id text, p_run integer, p_stage integer, p_task_id text, p_lease_id uuid, p_owner text) is 'Leases one task that can be claimed, in one statement whose plan is made once.';
comment on function "app"."claim_tasks_in_line"(p_job_id text, p_run integer, p_stage integer, p_task_types text[], p_limit integer, p_lease_id uuid, p_owner text) is 'Leases tasks that wait in line to a process that has just ended some of their stage: no message names them.';

-- Control: what operators do to a job that has not ended: cancel, pause, resume, adjust. rerun.sql begins an ended job
-- again.

-- Cancels a job: waiting tasks at once, running tasks when they end or when the grace is over.
-- Running tasks learn of it at their next heartbeat, and the job is `cancelling` until the last of them has ended;
-- force_cancel ends it after p_grace_seconds. Without a grace running tasks lose their leases at once. A further call
-- can only bring the deadline nearer. Returns the job's status afterwards, null for an unknown job.
-- Locks: the stage, then the job row; task rows that another transaction holds are skipped, and the janitor finds them.
create or replace function "app".cancel_job(
  p_job_id text, p_reason text, p_grace_seconds double precision, p_actor text
) returns text
language plpgsql as $$
declare
  v_deadline timestamptz := "app".clock() + p_grace_seconds * interval '1 second';
  v_job record;
begin
  select j.run, j.stage into v_job from "app".jobs j where j.job_id = p_job_id;
  if not found then
    return null;
  end if;
  perform "app".lock_stage(p_job_id, v_job.run, v_job.stage);
  select j.run, j.stage, j.status, j.cancel_deadline_at into v_job
  from "app".jobs j where j.job_id = p_job_id for update;
  -- It has ended, or a newer release gave it a status that this one does not know.
  if v_job.status not in ('queued', 'processing', 'cancelling', 'finalizing')
    or (v_job.status = 'cancelling' and v_deadline >= v_job.cancel_deadline_at) then
    return v_job.status;
  end if;
  perform "app".record_event(p_job_id, v_job.run, v_job.stage, null, 'cancel_requested',
    jsonb_build_object('reason', p_reason, 'actor', p_actor, 'grace_seconds', p_grace_seconds));
  perform "app".record_audit('cancel', p_job_id, p_actor, p_reason,
    jsonb_build_object('from', v_job.status, 'run', v_job.run, 'grace_seconds', p_grace_seconds));
  if v_job.status in ('processing', 'cancelling') then
    perform "app".cancel_open_tasks(p_job_id, v_job.run, v_job.stage, p_grace_seconds <= 0);
    if "app".ensure_watch(p_job_id, v_job.run, v_job.stage) then
      update "app".jobs j
      set status = 'cancelling', cancel_deadline_at = v_deadline, paused_at = null, updated_at = "app".clock(),
          error = coalesce(j.error, "app".cancelled_error(p_reason))
      where j.job_id = p_job_id;
      if not found then
        perform "app".report_left_out('jobs');
      end if;
      perform "app".drop_kept_places(p_job_id, v_job.run);
      return 'cancelling';
    end if;
  end if;
  perform "app".end_job(p_job_id, v_job.run, 'cancelled', "app".cancelled_error(p_reason));
  return 'cancelled';
end $$;

-- Cancels a job with the default grace: the form that the release before calls.
create or replace function "app".cancel_job(p_job_id text, p_reason text) returns text
language plpgsql as $$
begin
  return "app".cancel_job(p_job_id, p_reason, 300.0, null);
end $$;

-- Ends a job that has been cancelling for longer than its grace.
-- Leases are revoked, so late results find nothing to write to. Returns the number of tasks that had not stopped; null
-- when the grace is not over, or the job ended meanwhile.
-- Fence: `cancelling`, which only leads to `cancelled`. Locks: task rows by id, then the stage, then the job row.
create or replace function "app".force_cancel(p_job_id text, p_run integer, p_stage integer) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_places tid[];
begin
  perform 1 from "app".jobs j
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = 'cancelling'
    and coalesce(j.cancel_deadline_at, j.updated_at + 300.0 * interval '1 second') <= v_now;
  if not found then
    return null;
  end if;
  select coalesce(array_agg(o.place), array[]::tid[]) into v_places from (
    select t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and t.status in ('pending', 'queued', 'processing', 'pending_retry')
    order by t.task_id for update
  ) o;
  perform "app".keep_places(v_places);
  update "app".tasks t
  set status = 'cancelled', is_watched = false, lease_id = null, lease_expires_at = null, due_at = null,
      parked_at = null, finished_at = v_now,
      error = "app".stored_error('CancelForced',
        format('its job was cancelled, and it did not stop in time (on %s)', t.lease_owner), false, t.attempt, v_now)
  where t.ctid = any (v_places);
  if not "app".check_stage(p_job_id, p_run, p_stage, false, null) then
    return null;
  end if;
  perform "app".record_event(p_job_id, p_run, p_stage, null, 'cancel_forced',
    jsonb_build_object('count', cardinality(v_places)));
  return cardinality(v_places);
end $$;

-- Cancels the waiting tasks of a stage, and with p_with_running its running ones.
-- Rows that another transaction holds are skipped: they end as cancelled when they settle, are claimed, or lose their
-- lease. Returns how many were cancelled.
-- Locks: task rows by id, none waited for, so it may follow any other lock.
create or replace function "app".cancel_open_tasks(
  p_job_id text, p_run integer, p_stage integer, p_with_running boolean
) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_places tid[];
  v_count integer;
begin
  select array_agg(o.place) into v_places from (
    select t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and (t.status in ('pending', 'queued', 'pending_retry') or (p_with_running and t.status = 'processing'))
    order by t.task_id for update skip locked
  ) o;
  if p_with_running and exists (
    select from "app".stages s
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.settings ->> 'limits' is not null
  ) then
    perform "app".keep_places(v_places);
  end if;
  update "app".tasks t
  set status = 'cancelled', is_watched = false, lease_id = null, lease_expires_at = null, due_at = null,
      parked_at = null, finished_at = "app".clock()
  where t.ctid = any (v_places);
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- Pauses a job: nothing new is claimed, planned or finalized, and running tasks end as they would.
-- Outcome: paused; already_paused; refused (it has ended or is being cancelled); missing.
-- Locks: the job row.
create or replace function "app".pause_job(p_job_id text, p_reason text, p_actor text)
returns table (outcome text, status text, run integer, stage integer, is_paused boolean)
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
  v_job record;
begin
  select j.status, j.run, j.stage, j.paused_at into v_job from "app".jobs j where j.job_id = p_job_id for update;
  outcome := case
    when not found then 'missing'
    when v_job.status not in ('queued', 'processing', 'finalizing') then 'refused'
    when v_job.paused_at is not null then 'already_paused'
    else 'paused'
  end;
  status := v_job.status;
  run := v_job.run;
  stage := v_job.stage;
  is_paused := outcome = 'paused' or v_job.paused_at is not null;
  if outcome = 'paused' then
    update "app".jobs j set paused_at = v_now, updated_at = v_now where j.job_id = p_job_id;
    if not found then
      perform "app".report_left_out('jobs');
    end if;
    perform "app".record_event(p_job_id, v_job.run, v_job.stage, null, 'job_paused',
      jsonb_build_object('reason', p_reason, 'actor', p_actor));
    perform "app".record_audit('pause', p_job_id, p_actor, p_reason,
      jsonb_build_object('from', v_job.status, 'run', v_job.run));
  end if;
  return next;
end $$;

-- Lets a paused job go on; the time of the pause does not count against its deadlines.
-- Its step and its parked tasks have to be announced again: the caller does that, or the janitor.
-- Outcome: resumed; not_paused; refused (it has ended or is being cancelled); missing. wait_seconds: until a step that
-- is to be retried is due.
-- Locks: the stage, then the job row.
create or replace function "app".resume_job(p_job_id text, p_reason text, p_actor text)
returns table (outcome text, status text, run integer, stage integer, is_paused boolean, wait_seconds double precision)
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
  v_seen record;
  v_job record;
begin
  select j.run, j.stage into v_seen from "app".jobs j where j.job_id = p_job_id;
  if found then
    perform "app".lock_stage(p_job_id, v_seen.run, v_seen.stage);
  end if;
  select j.status, j.run, j.stage, j.paused_at, j.due_at into v_job
  from "app".jobs j where j.job_id = p_job_id for update;
  outcome := case
    when not found then 'missing'
    when v_job.status not in ('queued', 'processing', 'finalizing') then 'refused'
    when v_job.paused_at is null then 'not_paused'
    else 'resumed'
  end;
  status := v_job.status;
  run := v_job.run;
  stage := v_job.stage;
  is_paused := false;
  wait_seconds := greatest(extract(epoch from v_job.due_at - v_now), 0)::double precision;
  if outcome = 'resumed' then
    -- The time that it was paused does not count against its deadlines. A stage that it came to since the look above
    -- has hardly waited, and is not locked: it keeps its own.
    update "app".jobs j
    set paused_at = null, announced_at = null, updated_at = v_now,
        deadline_at = j.deadline_at + (v_now - v_job.paused_at)
    where j.job_id = p_job_id;
    if not found then
      perform "app".report_left_out('jobs');
    end if;
    update "app".stages s
    set deadline_at = s.deadline_at + (v_now - greatest(v_job.paused_at, s.created_at)),
        queue_deadline_at = s.queue_deadline_at + (v_now - greatest(v_job.paused_at, s.created_at))
    where s.job_id = p_job_id and s.run = v_seen.run and s.stage = v_seen.stage and v_job.run = v_seen.run
      and v_job.stage = v_seen.stage
      and coalesce(s.deadline_at, s.queue_deadline_at) is not null;
    perform "app".record_event(p_job_id, v_job.run, v_job.stage, null, 'job_resumed',
      jsonb_build_object('reason', p_reason, 'actor', p_actor,
        'paused_seconds', round(extract(epoch from v_now - v_job.paused_at)::numeric, 3)));
    perform "app".record_audit('resume', p_job_id, p_actor, p_reason,
      jsonb_build_object('from', v_job.status, 'run', v_job.run));
  end if;
  return next;
end $$;

-- Changes what decides how fast a job goes on: its priority, and max_parallel of the stage that runs.
-- p_changes has the fields to change: priority (null: that of its definition), max_parallel (null: no limit). What is
-- announced already is not taken back. p_stage is the stage that the caller means, null the present one.
-- Outcome: adjusted; unchanged; refused (it has ended or is being cancelled); other_stage (p_stage is not where the job
-- is); nothing_waits (of max_parallel: no task of the stage waits in line); missing. priority and max_parallel are
-- those that count now.
-- Locks: the window's, the stage, then the job row.
create or replace function "app".adjust_job(
  p_job_id text, p_stage integer, p_changes jsonb, p_reason text, p_actor text
) returns table (
  outcome text, status text, run integer, stage integer, is_paused boolean, priority text, max_parallel integer
)
language plpgsql as $$
#variable_conflict use_column
declare
  v_seen record;
  v_job record;
  v_stage record;
  v_max_parallel integer := (p_changes ->> 'max_parallel')::integer;
begin
  select j.run, j.stage into v_seen from "app".jobs j where j.job_id = p_job_id;
  if found and p_changes ? 'max_parallel' then
    perform "app".lock_window(p_job_id, v_seen.run, v_seen.stage);
    perform "app".lock_stage(p_job_id, v_seen.run, v_seen.stage);
  end if;
  select j.status, j.run, j.stage, j.paused_at is not null as is_paused, j.priority,
    j.definition ->> 'priority' as declared
  into v_job from "app".jobs j where j.job_id = p_job_id for update;
  if not found then
    outcome := 'missing';
    return next;
    return;
  end if;
  select s.window_from, s.window_after, (s.settings ->> 'max_parallel')::integer as max_parallel into v_stage
  from "app".stages s where s.job_id = p_job_id and s.run = v_job.run and s.stage = v_job.stage;
  outcome := case
    when v_job.status not in ('queued', 'processing', 'finalizing') then 'refused'
    when coalesce(p_stage, v_job.stage) <> v_job.stage or (p_changes ? 'max_parallel'
      and (v_job.run, v_job.stage) <> (v_seen.run, v_seen.stage)) then 'other_stage'
    when p_changes ? 'max_parallel' and (v_job.status <> 'processing' or v_stage.window_after is null or not
      "app".has_tasks_in_line(p_job_id, v_job.run, v_job.stage, v_stage.window_from, v_stage.window_after)) then 'nothing_waits'
    when (not p_changes ? 'priority' or v_job.priority is not distinct from p_changes ->> 'priority')
      and (not p_changes ? 'max_parallel' or v_stage.max_parallel is not distinct from v_max_parallel) then 'unchanged'
    else 'adjusted'
  end;
  status := v_job.status;
  run := v_job.run;
  stage := v_job.stage;
  is_paused := v_job.is_paused;
  priority := case when outcome in ('adjusted', 'unchanged') and p_changes ? 'priority'
    then p_changes ->> 'priority' else v_job.priority end;
  max_parallel := case when outcome in ('adjusted', 'unchanged') and p_changes ? 'max_parallel'
    then v_max_parallel else v_stage.max_parallel end;
  if outcome = 'adjusted' then
    update "app".jobs j set priority = adjust_job.priority where j.job_id = p_job_id;
    if not found then
      perform "app".report_left_out('jobs');
    end if;
    if p_changes ? 'max_parallel' then
      -- As a new window, so that a larger number counts at once.
      update "app".stages s
      set settings = s.settings || jsonb_build_object('max_parallel', v_max_parallel), window_at = null,
          window_size = greatest(s.window_size, "app".first_window(
            s.settings || jsonb_build_object('max_parallel', v_max_parallel)))
      where s.job_id = p_job_id and s.run = v_job.run and s.stage = v_job.stage;
      if not found then
        perform "app".report_left_out('stages');
      end if;
    end if;
    perform "app".record_event(p_job_id, v_job.run, v_job.stage, null, 'job_adjusted',
      p_changes || jsonb_build_object('reason', p_reason, 'actor', p_actor));
    perform "app".record_audit('adjust', p_job_id, p_actor, p_reason, jsonb_build_object(
      'run', v_job.run, 'stage', v_job.stage, 'from', jsonb_build_object(
        'priority', coalesce(v_job.priority, v_job.declared), 'max_parallel', v_stage.max_parallel), 'to', p_changes));
  end if;
  priority := coalesce(priority, v_job.declared, 'normal');
  return next;
end $$;

comment on function "app"."cancel_job"(p_job_id text, p_reason text, p_grace_seconds double precision, p_actor text) is 'Cancels a job: waiting tasks at once, running tasks when they end or when the grace is over.';
comment on function "app"."cancel_job"(p_job_id text, p_reason text) is 'Cancels a job with the default grace: the form that the release before calls.';
comment on function "app"."force_cancel"(p_job_id text, p_run integer, p_stage integer) is 'Ends a job that has been cancelling for longer than its grace.';
comment on function "app"."cancel_open_tasks"(p_job_id text, p_run integer, p_stage integer, p_with_running boolean) is 'Cancels the waiting tasks of a stage, and with p_with_running its running ones.';
comment on function "app"."pause_job"(p_job_id text, p_reason text, p_actor text) is 'Pauses a job: nothing new is claimed, planned or finalized, and running tasks end as they would.';
comment on function "app"."resume_job"(p_job_id text, p_reason text, p_actor text) is 'Lets a paused job go on; the time of the pause does not count against its deadlines.';
comment on function "app"."adjust_job"(p_job_id text, p_stage integer, p_changes jsonb, p_reason text, p_actor text) is 'Changes what decides how fast a job goes on: its priority, and max_parallel of the stage that runs.';

-- Dead letters: messages that their queue gave up are kept here, and their rows get another message.

-- Keeps a message that its queue gave up, and lets the rows that it named be announced again.
-- Nothing else would announce them. They are held first: 30 s, doubled with each message of theirs that died, at most
-- an hour, so that a message which no worker survives does not come at once again and again. Nothing is failed: age and
-- bad luck never fail work.
-- Outcome: recorded; known (it was delivered twice: nothing changed).
-- Fence: the unique index over what distinguishes messages. Locks: task rows by id, then the job row.
create or replace function "app".record_dead_letter(
  p_queue text, p_message_id text, p_sequence_number bigint, p_enqueued_at timestamptz, p_kind text, p_job_id text,
  p_run integer, p_stage integer, p_task_ids text[], p_reason text, p_description text, p_delivery_count integer,
  p_correlation_id text, p_body text, p_body_size integer
) returns table (
  outcome text, dead_letter_id bigint, job_found boolean, released integer, hold_seconds double precision
)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
  v_now timestamptz := "app".clock();
  v_due timestamptz;
  v_task_id text := coalesce(p_task_ids[1], '');
  v_job_run integer;
  v_places tid[];
begin
  insert into "app".dead_letters (
    job_id, queue, message_id, sequence_number, enqueued_at, kind, run, stage, task_id, task_ids, reason, description,
    fingerprint, delivery_count, correlation_id, body, body_size, received_at
  ) values (
    p_job_id, p_queue, p_message_id, p_sequence_number, p_enqueued_at, p_kind, p_run, p_stage, v_task_id, p_task_ids,
    p_reason, p_description, "app".error_fingerprint(p_reason, p_description), p_delivery_count, p_correlation_id,
    p_body, p_body_size, v_now
  ) on conflict do nothing returning dead_letters.dead_letter_id into dead_letter_id;
  outcome := case when found then 'recorded' else 'known' end;
  job_found := false;
  released := 0;
  if outcome = 'known' then
    -- The message leaves its queue when this returns.
    if not exists (
      select from "app".dead_letters d
      where d.job_id = p_job_id and d.queue = p_queue and d.message_id = p_message_id
        and d.sequence_number = p_sequence_number and d.enqueued_at = p_enqueued_at
    ) then
      perform "app".report_left_out('dead_letters');
    end if;
    return next;
    return;
  end if;

  select least(30 * 2.0 ^ (least(greatest(count(*), 1), 8) - 1), 3600) into hold_seconds from "app".dead_letters d
  where d.job_id = p_job_id and d.run = p_run and d.stage = p_stage and d.task_id = v_task_id;
  v_due := v_now + hold_seconds * interval '1 second';
  select j.run into v_job_run from "app".jobs j where j.job_id = p_job_id;
  job_found := found;
  if job_found and p_kind = 'task' then
    select array_agg(o.place) into v_places from "app".ids_in_order(p_task_ids) as named
    cross join lateral (
      select t.ctid as place from "app".tasks t
      where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
        and (t.status = 'queued' or (t.status = 'pending_retry' and t.announced_at is not null))
        and exists (
          select 1 from "app".stages s
          where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.status = 'processing'
        )
      for update of t
    ) o;
    update "app".tasks t
    set status = case t.status when 'queued' then 'pending' else t.status end, announced_at = null,
        due_at = greatest(t.due_at, v_due)
    where t.ctid = any (v_places);
    get diagnostics released = row_count;
  elsif job_found and p_kind in ('job', 'stage_complete') then
    update "app".jobs j set announced_at = null, due_at = greatest(j.due_at, v_due)
    where j.job_id = p_job_id and j.run = p_run and j.status in ('queued', 'finalizing') and j.announced_at is not null;
    get diagnostics released = row_count;
  end if;
  if job_found then
    perform "app".record_event(p_job_id, least(p_run, v_job_run), p_stage, nullif(v_task_id, ''),
      'message_dead_lettered', jsonb_build_object(
        'dead_letter_id', dead_letter_id, 'queue', p_queue, 'reason', p_reason, 'description', p_description,
        'task_count', cardinality(p_task_ids), 'released', released, 'hold_seconds', hold_seconds));
  end if;
  return next;
end $$;

-- Notes how dead letters were dealt with, and returns how many changed.
-- Those that were dealt with before stay as they are.
-- Locks: their rows by id.
create or replace function "app".resolve_dead_letters(
  p_ids bigint[], p_resolution text, p_actor text
) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_ids bigint[];
  v_count integer;
begin
  select array_agg(o.dead_letter_id) into v_ids from (
    select d.dead_letter_id from "app".dead_letters d
    where d.dead_letter_id = any (p_ids) and d.resolved_at is null
    order by d.dead_letter_id for update
  ) o;
  update "app".dead_letters d set resolved_at = "app".clock(), resolution = p_resolution
  where d.dead_letter_id = any (v_ids);
  get diagnostics v_count = row_count;
  if v_count < cardinality(v_ids) then
    perform "app".report_left_out('dead_letters');
  end if;
  perform "app".record_event(d.job_id, least(d.run, j.run), d.stage, nullif(d.task_id, ''),
    'dead_letter_' || p_resolution, jsonb_build_object('dead_letter_id', d.dead_letter_id, 'queue', d.queue)
      || case when p_actor is null then jsonb_build_object() else jsonb_build_object('actor', p_actor) end)
  from "app".dead_letters d join "app".jobs j on j.job_id = d.job_id
  where d.dead_letter_id = any (v_ids);
  perform "app".record_audit('redrive', coalesce(d.job_id, ''), p_actor, null, jsonb_build_object(
    'dead_letter_id', d.dead_letter_id, 'queue', d.queue, 'outcome', p_resolution))
  from "app".dead_letters d where d.dead_letter_id = any (v_ids);
  return coalesce(cardinality(v_ids), 0);
end $$;

-- Notes how dead letters were dealt with, by nobody in particular: the form that the release before calls.
-- There is no default above, since a call with two arguments would fit both.
create or replace function "app".resolve_dead_letters(p_ids bigint[], p_resolution text) returns integer
language sql as $$
  select "app".resolve_dead_letters(p_ids, p_resolution, null);
$$;

comment on function "app"."record_dead_letter"(p_queue text, p_message_id text, p_sequence_number bigint, p_enqueued_at timestamptz, p_kind text, p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_reason text, p_description text, p_delivery_count integer, p_correlation_id text, p_body text, p_body_size integer) is 'Keeps a message that its queue gave up, and lets the rows that it named be announced again.';
comment on function "app"."resolve_dead_letters"(p_ids bigint[], p_resolution text, p_actor text) is 'Notes how dead letters were dealt with, and returns how many changed.';
comment on function "app"."resolve_dead_letters"(p_ids bigint[], p_resolution text) is 'Notes how dead letters were dealt with, by nobody in particular: the form that the release before calls.';

-- Declared deadlines: set where rows are written, enforced here. Waiting work without one is never judged by its age,
-- and the time that a job is paused does not count.

-- Sets a job's deadline at the beginning of each run.
-- It is a trigger, so that no function that begins a run can forget it.
create or replace function "app".set_job_deadline() returns trigger
language plpgsql as $$
begin
  new.deadline_at := (case tg_op when 'INSERT' then new.created_at else "app".clock() end)
    + (new.definition ->> 'timeout_seconds')::double precision * interval '1 second';
  return new;
end $$;

create or replace trigger set_deadline_of_new before insert on "app".jobs
for each row execute function "app".set_job_deadline();

create or replace trigger set_deadline_of_run before update of run on "app".jobs
for each row when (old.run is distinct from new.run) execute function "app".set_job_deadline();

-- Sets a stage's deadlines, both counted from the moment its row is written: the job has come to it.
create or replace function "app".set_stage_deadlines() returns trigger
language plpgsql as $$
begin
  new.deadline_at := new.created_at
    + (new.settings ->> 'timeout_seconds')::double precision * interval '1 second';
  new.queue_deadline_at := new.created_at
    + (new.settings ->> 'queue_timeout_seconds')::double precision * interval '1 second';
  return new;
end $$;

create or replace trigger set_deadlines before insert on "app".stages
for each row execute function "app".set_stage_deadlines();

-- Whether an attempt that began at p_started_at has used up its stage's task_timeout_seconds.
create or replace function "app".is_task_timed_out(
  p_started_at timestamptz, p_settings jsonb, p_now timestamptz
) returns boolean
language sql immutable as $$
  select coalesce(
    p_started_at + (p_settings ->> 'task_timeout_seconds')::double precision * interval '1 second' <= p_now, false)
$$;

-- Finds the stages where jobs are whose own deadline, or whose stage's, has passed; for the janitor.
create or replace function "app".find_overdue_stages(p_limit integer)
returns table (job_id text, run integer, stage integer)
language sql stable as $$
  (
    select j.job_id, j.run, j.stage from "app".jobs j
    where j.status in ('queued', 'processing', 'finalizing') and j.deadline_at <= "app".clock()
      and j.paused_at is null
    order by j.deadline_at limit p_limit
  ) union (
    select s.job_id, s.run, s.stage from "app".stages s
    join "app".jobs j on j.job_id = s.job_id and j.run = s.run and j.stage = s.stage
    where s.status in ('queued', 'processing') and s.deadline_at <= "app".clock()
      and j.status in ('queued', 'processing', 'finalizing') and j.paused_at is null
    order by s.deadline_at limit p_limit
  ) union (
    select s.job_id, s.run, s.stage from "app".stages s
    join "app".jobs j on j.job_id = s.job_id and j.run = s.run and j.stage = s.stage
    where s.status in ('queued', 'processing') and s.queue_deadline_at <= "app".clock()
      and j.status in ('queued', 'processing', 'finalizing') and j.paused_at is null
      and (s.status = 'queued' or exists (
        select 1 from "app".tasks t
        where t.job_id = s.job_id and t.run = s.run and t.stage = s.stage
          and t.status in ('pending', 'queued', 'pending_retry') and t.attempt = 0
      ))
    order by s.queue_deadline_at limit p_limit
  )
$$;

-- Ends what is overdue at the stage where the job is.
-- Outcome: job_timed_out, stage_timed_out, queue_time_expired (its planning never began), in which the job has failed;
-- tasks_expired (at most p_limit tasks that nobody had started failed, and the stage's policy was applied); nothing (no
-- deadline has passed, or the job has advanced).
-- Fence: the deadline and the statuses, read again under the locks. The first transaction to have the lock decides: a
-- completion that came before counts, one that comes after finds its stage ended.
-- Locks: task rows by id (those that another transaction holds are skipped: they are being started), the stage, the job
-- row.
-- Raises CM001 when the stage ended between the look at it and its lock: call again.
create or replace function "app".enforce_deadlines(
  p_job_id text, p_run integer, p_stage integer, p_limit integer
) returns table (outcome text, expired_count integer, is_last_task_in_stage boolean, job_status text)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_error jsonb;
  v_expired text[];
begin
  outcome := 'nothing';
  expired_count := 0;
  is_last_task_in_stage := false;
  v_error := "app".find_missed_deadline(p_job_id, p_run, p_stage, v_now);
  if v_error is not null then
    perform "app".lock_stage(p_job_id, p_run, p_stage);
    perform 1 from "app".jobs j where j.job_id = p_job_id for update;
    v_error := "app".find_missed_deadline(p_job_id, p_run, p_stage, v_now);
    if v_error is not null and "app".end_job(p_job_id, p_run, 'failed', v_error) then
      outcome := case v_error ->> 'type'
        when 'JobTimedOut' then 'job_timed_out' when 'StageTimedOut' then 'stage_timed_out'
        else 'queue_time_expired' end;
    end if;
  elsif exists (
    select 1 from "app".stages s join "app".jobs j on j.job_id = s.job_id
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.queue_deadline_at <= v_now
      and (j.status = 'processing' and j.run = s.run and s.status = 'processing') and j.paused_at is null
  ) then
    v_expired := "app".expire_unstarted_tasks(p_job_id, p_run, p_stage, p_limit);
    if v_expired is not null then
      outcome := 'tasks_expired';
      expired_count := cardinality(v_expired);
      is_last_task_in_stage := "app".check_stage(p_job_id, p_run, p_stage, true, v_expired);
    end if;
  end if;
  select j.status into job_status from "app".jobs j where j.job_id = p_job_id;
  return next;
end $$;

-- The error of the deadline that the job has missed at this stage, the widest first; null when it missed none.
create or replace function "app".find_missed_deadline(
  p_job_id text, p_run integer, p_stage integer, p_now timestamptz
) returns jsonb
language sql stable as $$
  select "app".stored_error(m.type, m.message, false, null, p_now)
    || jsonb_build_object('stage', p_stage, 'deadline_at', m.deadline_at)
  from "app".jobs j
  join "app".stages s on s.job_id = j.job_id and s.run = j.run and s.stage = j.stage
  cross join lateral (
    select * from (values
      (1, 'JobTimedOut', j.deadline_at, j.status in ('queued', 'processing', 'finalizing'),
        format('the job was to end within %s s, its timeout_seconds, and was at stage %s of %s',
          (j.definition ->> 'timeout_seconds')::double precision, j.stage, j.total_stages)),
      (2, 'StageTimedOut', s.deadline_at, s.status in ('queued', 'processing') and j.status in ('queued', 'processing', 'finalizing'),
        format('stage %s was to end within %s s, its timeout_seconds, and was %s',
          s.stage, (s.settings ->> 'timeout_seconds')::double precision, s.status)),
      (3, 'QueueTimeExpired', s.queue_deadline_at, s.status = 'queued' and j.status = 'queued',
        format('stage %s was to begin within %s s, its queue_timeout_seconds, and was not planned by then',
          s.stage, (s.settings ->> 'queue_timeout_seconds')::double precision))
    ) as d(place, type, deadline_at, is_open, message)
    where d.is_open and d.deadline_at <= p_now
    order by d.place limit 1
  ) m
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.paused_at is null
$$;

-- Fails tasks that no attempt has begun, and returns their ids; the caller checks the stage.
-- Locks: task rows by id, none waited for.
create or replace function "app".expire_unstarted_tasks(
  p_job_id text, p_run integer, p_stage integer, p_limit integer
) returns text[]
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_ids text[];
  v_places tid[];
begin
  select array_agg(e.task_id), array_agg(e.place) into v_ids, v_places from (
    select t.task_id, t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and t.status in ('pending', 'queued', 'pending_retry') and t.attempt = 0
    order by t.task_id limit p_limit for update skip locked
  ) e;
  update "app".tasks t
  set status = 'failed', is_watched = false, due_at = null, parked_at = null, finished_at = v_now,
      error = "app".stored_error('QueueTimeExpired',
        format('was to begin within %s s of its stage, the queue_timeout_seconds of that, and had not by then',
          (s.settings ->> 'queue_timeout_seconds')::double precision), false, 0, v_now)
  from "app".stages s
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage
    and t.ctid = any (v_places);
  return v_ids;
end $$;

comment on function "app"."set_job_deadline"() is 'Sets a job''s deadline at the beginning of each run.';
comment on function "app"."set_stage_deadlines"() is 'Sets a stage''s deadlines, both counted from the moment its row is written: the job has come to it.';
comment on function "app"."is_task_timed_out"(p_started_at timestamptz, p_settings jsonb, p_now timestamptz) is 'Whether an attempt that began at p_started_at has used up its stage''s task_timeout_seconds.';
comment on function "app"."find_overdue_stages"(p_limit integer) is 'Finds the stages where jobs are whose own deadline, or whose stage''s, has passed; for the janitor.';
comment on function "app"."enforce_deadlines"(p_job_id text, p_run integer, p_stage integer, p_limit integer) is 'Ends what is overdue at the stage where the job is.';
comment on function "app"."find_missed_deadline"(p_job_id text, p_run integer, p_stage integer, p_now timestamptz) is 'The error of the deadline that the job has missed at this stage, the widest first; null when it missed none.';
comment on function "app"."expire_unstarted_tasks"(p_job_id text, p_run integer, p_stage integer, p_limit integer) is 'Fails tasks that no attempt has begun, and returns their ids; the caller checks the stage.';

-- Inline stages: one process holds every task of a stage, and has prepared what comes after it from these very results.
-- The end of the stage and the next step commit in one transaction instead of two or three, and nobody sees the job in
-- between. If anything is not as the caller expects (another process has a task, the job is paused or being cancelled,
-- a deadline has passed), nothing is done: CM004, and the caller settles its tasks alone. Since these are all tasks of
-- the stage, no task is left to be watched. Locks in all of them: task rows by id, then the stage, then the job row.

-- Ends a stage with all its tasks and plans the next stage, which has few tasks and at least one.
-- With p_next_lease_id the next tasks are born claimed, as in plan_small_stage.
-- Fence: the lease; the job goes on from this stage.
-- Raises CM004.
create or replace function "app".complete_stage_and_plan_next(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[],
  p_next_task_ids text[], p_next_task_types text[], p_next_queues text[], p_next_names text[],
  p_next_parameters jsonb[], p_next_lease_id uuid, p_owner text, p_tasks_per_message integer
) returns void
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_settings jsonb;
begin
  perform "app".end_whole_stage(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_results, v_now);
  update "app".jobs j
  set stage = p_stage + 1, announced_at = null, attempt = 0, due_at = null, updated_at = v_now
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = 'processing'
    and p_stage < j.total_stages and j.paused_at is null and (j.deadline_at <= v_now) is not true
  returning j.definition -> 'stages' -> p_stage into v_settings;
  if not found then
    raise exception 'job % run % does not go on from stage %', p_job_id, p_run, p_stage using errcode = 'CM004';
  end if;
  if p_tasks_per_message is not null then
    v_settings := v_settings || jsonb_build_object('tasks_per_message', p_tasks_per_message);
  end if;
  insert into "app".stages (job_id, run, stage, status, settings, expected_count, created_at, planned_at)
  values (p_job_id, p_run, p_stage + 1, 'processing', v_settings, cardinality(p_next_task_ids), v_now, v_now);
  if not found then
    perform "app".report_left_out('stages');
  end if;
  perform "app".insert_few_tasks(p_job_id, p_run, p_stage + 1, p_next_task_ids, p_next_task_types, p_next_queues,
    p_next_names, p_next_parameters, p_next_lease_id, p_owner, (v_settings ->> 'lease_seconds')::double precision);
  insert into "app".job_events (job_id, run, stage, event, detail, at)
  values (p_job_id, p_run, p_stage, 'stage_completed', jsonb_build_object(), v_now),
    (p_job_id, p_run, p_stage + 1, 'stage_planned',
      jsonb_build_object('expected_count', cardinality(p_next_task_ids)), v_now);
  if not found then
    perform "app".report_left_out('job_events');
  end if;
end $$;

-- Ends the last stage with all its tasks and the job with its summary. Returns the job's final status.
-- Fence: the lease; this is the last stage.
-- Raises CM004.
create or replace function "app".complete_stage_and_finalize(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[],
  p_job_result jsonb
) returns text
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_status text;
begin
  perform "app".end_whole_stage(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_results, v_now);
  update "app".jobs j
  set status = case when exists (
        select 1 from "app".stages s where s.job_id = p_job_id and s.run = p_run and s.failed_count > 0
      ) then 'completed_with_errors' else 'completed' end,
      result = p_job_result, announced_at = null, attempt = 0, due_at = null, finished_at = v_now, updated_at = v_now
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = 'processing'
    and p_stage = j.total_stages and j.paused_at is null and (j.deadline_at <= v_now) is not true
  returning j.status into v_status;
  if not found then
    raise exception 'job % run % does not end with stage %', p_job_id, p_run, p_stage using errcode = 'CM004';
  end if;
  insert into "app".job_events (job_id, run, stage, event, detail, at)
  values (p_job_id, p_run, p_stage, 'stage_completed', jsonb_build_object(), v_now),
    (p_job_id, p_run, null, 'job_' || v_status, jsonb_build_object(), v_now);
  if not found then
    perform "app".report_left_out('job_events');
  end if;
  perform "app".note_job_event(p_job_id, p_run, 'job.' || v_status);
  return v_status;
end $$;

-- Ends all tasks of a stage as completed, and the stage with them. Raises CM004 when these are not all of them.
create or replace function "app".end_whole_stage(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[],
  p_now timestamptz
) returns void
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_count integer := 1;
begin
  if cardinality(p_task_ids) > 1 then
    v_count := "app".complete_held_tasks(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_results, p_now);
  else
    update "app".tasks t
    set status = 'completed', is_watched = false, lease_id = null, lease_expires_at = null, finished_at = p_now,
        result = p_results[1], error = null
    where t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_ids[1] and t.stage = p_stage
      and t.status is not distinct from 'processing' and t.lease_id = p_lease_id;
    get diagnostics v_count = row_count;
  end if;
  perform "app".lock_stage(p_job_id, p_run, p_stage);
  update "app".stages s set status = 'completed', finished_at = p_now
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.status = 'processing'
    and s.expected_count = v_count and s.failed_count = 0;
  if not found or v_count < cardinality(p_task_ids) then
    raise exception 'these are not all tasks of stage % of job % run %', p_stage, p_job_id, p_run
      using errcode = 'CM004';
  end if;
end $$;

-- Completes those of these tasks that the lease holds, and returns how many they are.
create or replace function "app".complete_held_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[],
  p_now timestamptz
) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_places tid[];
begin
  select coalesce(array_agg(h.place), array[]::tid[]) into v_places from "app".ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
      and t.status is not distinct from 'processing' and t.lease_id = p_lease_id
    for update
  ) h;
  perform "app".end_tasks(v_places, 'completed', p_task_ids, p_results, p_now);
  return cardinality(v_places);
end $$;

comment on function "app"."complete_stage_and_plan_next"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[], p_next_task_ids text[], p_next_task_types text[], p_next_queues text[], p_next_names text[], p_next_parameters jsonb[], p_next_lease_id uuid, p_owner text, p_tasks_per_message integer) is 'Ends a stage with all its tasks and plans the next stage, which has few tasks and at least one.';
comment on function "app"."complete_stage_and_finalize"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[], p_job_result jsonb) is 'Ends the last stage with all its tasks and the job with its summary.';
comment on function "app"."end_whole_stage"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[], p_now timestamptz) is 'Ends all tasks of a stage as completed, and the stage with them.';
comment on function "app"."complete_held_tasks"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[], p_now timestamptz) is 'Completes those of these tasks that the lease holds, and returns how many they are.';

-- Interruptions and timeouts: attempts that end without an outcome of their own, since their process died, lost its
-- lease, drains, or did not stop in time. An interruption has its own budget and spends no retry; a timeout is a failed
-- attempt.

-- Takes back the tasks of one stage whose lease has run out.
-- The row notes whether the process was refused more time (`timed_out_at`). If it was not, this is an interruption: the
-- process died or could not reach the database; the task is pending again, and beyond the stage's max_interruptions it
-- has failed as InterruptedTooOften. If it was, this is a timeout: the handler did not stop after task_timeout_seconds;
-- the attempt has failed, and is due again after the stage's back-off, or the task has failed as TaskTimedOut when no
-- attempt is left. In a stage or job that has ended they become cancelled. task_ids and owners name at most p_shown of
-- the tasks, and of the processes that had them.
-- Locks: task rows by id (those that another transaction holds are skipped), then the stage, then the job row.
-- Raises CM001 when the stage ended between the look at it and its lock: call again.
create or replace function "app".take_back_tasks(p_job_id text, p_run integer, p_stage integer, p_shown integer)
returns table (
  taken_back integer, given_up integer, is_last_task_in_stage boolean, timed_out integer, task_ids text[], owners text[]
)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_stage record;
  v_expired tid[];
  v_timed_out tid[];
  v_failed text[];
  v_total integer;
begin
  select (j.status = 'processing' and j.run = s.run and s.status = 'processing') as is_open,
         (s.settings ->> 'max_interruptions')::integer as allowed
  into v_stage
  from "app".stages s join "app".jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;

  select array_agg(e.place) filter (where e.timed_out_at is null or not v_stage.is_open),
         array_agg(e.place) filter (where e.timed_out_at is not null and v_stage.is_open),
         (array_agg(e.task_id))[:p_shown], (array_agg(distinct e.lease_owner))[:p_shown]
  into v_expired, v_timed_out, task_ids, owners
  from (
    select t.ctid as place, t.task_id, t.timed_out_at, t.lease_owner from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and t.status = 'processing' and t.lease_expires_at <= v_now
    order by t.task_id for update skip locked
  ) e;

  with ended as (
    update "app".tasks t
    set status = case when not v_stage.is_open then 'cancelled'
          when t.interruptions < v_stage.allowed then 'pending' else 'failed' end,
        interruptions = t.interruptions + 1, lease_id = null, lease_expires_at = null, announced_at = null,
        is_watched = t.is_watched and v_stage.is_open and t.interruptions < v_stage.allowed,
        finished_at = case when not v_stage.is_open or t.interruptions >= v_stage.allowed then v_now end,
        error = case when v_stage.is_open and t.interruptions >= v_stage.allowed then "app".interrupted_error(
          p_job_id, p_run, t.task_id, t.attempt, t.interruptions + 1, t.lease_owner, v_now) else t.error end
    where t.ctid = any (v_expired)
    returning t.task_id, t.status, t.interruptions, t.lease_owner
  ), noted as (
    select "app".record_event(p_job_id, p_run, p_stage, e.task_id, 'task_interrupted',
      jsonb_build_object('interruptions', e.interruptions, 'owner', e.lease_owner)), e.task_id, e.status from ended e
  )
  select array_agg(n.task_id) filter (where n.status = 'failed'), count(*) into v_failed, v_total from noted n;

  timed_out := coalesce(cardinality(v_timed_out), 0);
  v_total := v_total + timed_out;
  if timed_out > 0 then
    v_failed := v_failed || "app".end_timed_out_attempts(p_job_id, p_run, p_stage, v_timed_out);
  end if;
  given_up := coalesce(cardinality(v_failed), 0);
  taken_back := v_total - given_up;
  is_last_task_in_stage := false;
  if given_up > 0 or (v_total > 0 and not v_stage.is_open) then
    is_last_task_in_stage := "app".check_stage(p_job_id, p_run, p_stage, v_stage.is_open,
      case when given_up > 0 then v_failed end);
  end if;
  return next;
end $$;

-- Takes back tasks whose lease has run out, as a process of the release before calls it.
-- Its statements are prepared, so the result may not change while it runs.
create or replace function "app".take_back_tasks(p_job_id text, p_run integer, p_stage integer)
returns table (taken_back integer, given_up integer, is_last_task_in_stage boolean, timed_out integer)
language sql as $$
  select t.taken_back, t.given_up, t.is_last_task_in_stage, t.timed_out
  from "app".take_back_tasks(p_job_id, p_run, p_stage, 0) t;
$$;

-- The error of a task that was interrupted too often: what was lost, its processes or its outcomes, and why.
create or replace function "app".interrupted_error(
  p_job_id text, p_run integer, p_task_id text, p_attempt integer, p_interruptions integer, p_owner text,
  p_now timestamptz
) returns jsonb
language plpgsql stable as $$
declare
  v_alone integer;
  v_unwritten integer;
  v_reason text;
begin
  select count(*) filter (where a.event = 'task_runs_alone'), count(*) filter (where a.event = 'outcome_not_written'),
    (array_agg(a.detail ->> 'reason' order by a.event_id desc) filter (where a.event = 'outcome_not_written'))[1]
  into v_alone, v_unwritten, v_reason
  from "app".job_events a
  where a.job_id = p_job_id and a.run = p_run and a.task_id = p_task_id
    and a.event in ('task_runs_alone', 'outcome_not_written');
  return "app".stored_error('InterruptedTooOften', concat_ws('; ',
    case when v_unwritten > 0 then
      format('the database did not take its outcome %s, last: %s', "app".times_in_words(v_unwritten), v_reason) end,
    case when v_unwritten < p_interruptions then
      format('its process died, or lost the database, %s without an outcome%s (last: %s). Usually the memory was used up, '
        'and the system killed the process; else native code crashed, or the handler called os._exit',
        "app".times_in_words(p_interruptions - v_unwritten),
        case when v_alone > 0 then
          format(', and %s it ran alone there, so that nothing else in that process was the reason',
            "app".times_in_words(v_alone))
        end, p_owner) end), false, p_attempt, p_now);
end $$;

-- Notes in the job's timeline that outcomes of tasks which still run under this lease could not be written, and why:
-- their processes were not lost. Returns how many.
-- Fence: the lease. Locks: none but the new rows'.
create or replace function "app".note_unwritten(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_reason text
) returns integer
language sql set enable_seqscan = off as $$
  select count("app".record_event(p_job_id, p_run, p_stage, t.task_id, 'outcome_not_written',
    jsonb_build_object('reason', p_reason)))::integer
  from "app".ids_in_order(p_task_ids) as named
  join "app".tasks t on t.job_id = p_job_id and t.run = p_run and t.task_id = named.id
  where t.stage = p_stage and t.status is not distinct from 'processing' and t.lease_id = p_lease_id;
$$;

-- Notes in the job's timeline that the end of its step could not be written, and why; the same once in a minute.
-- Returns whether it was noted.
-- Fence: the job waits for a step of that stage. Locks: none but the new row's.
create or replace function "app".note_step_unwritten(
  p_job_id text, p_run integer, p_stage integer, p_step text, p_reason text
) returns boolean
language plpgsql as $$
declare
  v_detail jsonb := jsonb_build_object('step', p_step, 'reason', p_reason);
begin
  if not exists (
    select from "app".jobs j
    where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status in ('queued', 'finalizing')
  ) or exists (
    select from "app".job_events e
    where e.job_id = p_job_id and e.run = p_run and e.stage = p_stage and e.event = 'job_step_not_written'
      and e.detail = v_detail and e.at > "app".clock() - interval '1 minute'
  ) then
    return false;
  end if;
  perform "app".record_event(p_job_id, p_run, p_stage, null, 'job_step_not_written', v_detail);
  return true;
end $$;

-- Ends attempts that ran out of time and of their lease, and returns the tasks that have no attempt left and failed.
-- The others are due again after the stage's back-off. The caller holds the rows at these places and checks the stage.
create or replace function "app".end_timed_out_attempts(
  p_job_id text, p_run integer, p_stage integer, p_places tid[]
) returns text[]
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_settings jsonb;
  v_allowed integer;
  v_failed text[];
begin
  select s.settings, (s.settings -> 'retry' ->> 'max_attempts')::integer into v_settings, v_allowed
  from "app".stages s
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  with ended as (
    update "app".tasks t
    set lease_id = null, lease_expires_at = null, announced_at = null,
        is_watched = t.is_watched and t.attempt - t.interruptions < v_allowed,
        status = case when t.attempt - t.interruptions < v_allowed then 'pending_retry' else 'failed' end,
        due_at = case when t.attempt - t.interruptions < v_allowed then v_now + interval '1 second'
          * "app".retry_delay(v_settings -> 'retry', t.attempt - t.interruptions) end,
        finished_at = case when t.attempt - t.interruptions >= v_allowed then v_now end,
        error = "app".stored_error('TaskTimedOut',
          format('ran longer than %s s, the task_timeout_seconds of its stage %s, and did not stop when it was asked to; '
            'its worker was %s', (v_settings ->> 'task_timeout_seconds')::double precision, p_stage, t.lease_owner), true, t.attempt, v_now)
    where t.ctid = any (p_places)
    returning t.task_id, t.status, t.error, extract(epoch from t.due_at - v_now)::double precision as delay_seconds
  ), noted as (
    select "app".record_event(p_job_id, p_run, p_stage, e.task_id,
      'retry_scheduled', e.error || jsonb_build_object('delay_seconds', e.delay_seconds))
    from ended e where e.status = 'pending_retry'
  )
  select array_agg(e.task_id) filter (where e.status = 'failed') into v_failed
  from ended e cross join (select count(*) from noted) n;
  return v_failed;
end $$;

-- Gives claimed tasks back before their lease runs out, and returns those that need a message again: give_back_tasks.
-- Fence: the lease. Locks: as give_back_tasks.
create or replace function "app".release_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_started boolean
) returns text[]
language plpgsql as $$
begin
  return "app".give_back_tasks(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_started, p_started, null);
end $$;

-- Fails those of the tasks, which a process that drains has just released, that seem to end their processes.
-- Returns their ids. The caller holds the rows, and checks the stage.
create or replace function "app".fail_enders(
  p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_most integer
) returns text[]
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_places tid[];
  v_failed text[];
begin
  select array_agg(h.place) into v_places
  from "app".ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
      and t.interruptions >= p_most and t.started_at > v_now - interval '1 minute'
    offset 0
  ) h;
  with ended as (
    update "app".tasks t
    set status = 'failed', finished_at = v_now, announced_at = null, is_watched = false,
        error = "app".stored_error('InterruptedTooOften',
          format('its process was asked to end %s times while it ran, now within a minute of its begin (last: %s). If '
            'nobody stops processes so often, it sends SIGTERM to its own process or process group, or a program that it '
            'starts does: start that in a session of its own, or the handler in a process of its own',
            t.interruptions, t.lease_owner), false, t.attempt, v_now)
    where t.ctid = any (v_places)
    returning t.task_id
  )
  select coalesce(array_agg(e.task_id), array[]::text[]) into v_failed from ended e;
  return v_failed;
end $$;

-- Gives claimed tasks back before their lease runs out, and returns those that are pending again.
-- p_started false: their handler never began, so no attempt is counted, and no start by a limit's rate. True: an
-- interruption, of a process that drains, and it fails nothing: a deployment is nobody's fault. But a task that sends its
-- process the signal to end would end one after the other: one that was interrupted twice as often as its stage allows
-- (10 times at least), and again within a minute of its begin, has failed as InterruptedTooOften.
-- p_decides: tasks may fail in this transaction, as those that p_started names may.
-- p_until: up to this id they wait in their stage's line again; null: none does.
-- Fence: the lease. Locks: if they did not begin, those of the stage's limits; task rows by id, then the stage (shared
-- without p_decides), then the job row.
-- Raises CM001 when the stage ended between the look at it and its lock: call again.
create or replace function "app".give_back_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_started boolean,
  p_decides boolean, p_until text
) returns text[]
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_open boolean;
  v_ids text[];
  v_places tid[];
  v_limits text[];
  v_most integer;
  v_failed text[];
begin
  select (j.status = 'processing' and j.run = s.run and s.status = 'processing'), case when not p_started then "app".limit_names(s.settings) end,
         2 * greatest((s.settings ->> 'max_interruptions')::integer, 5)
  into v_open, v_limits, v_most
  from "app".stages s join "app".jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  if v_limits is not null then
    perform "app".lock_limits(v_limits);
  end if;
  select coalesce(array_agg(named.id), array[]::text[]), array_agg(h.place) into v_ids, v_places
  from "app".ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
      and t.status is not distinct from 'processing' and t.lease_id = p_lease_id
    for update
  ) h;
  if v_open and cardinality(v_ids) > 0 and not "app".keep_stage_open(p_job_id, p_run, p_stage, p_decides) then
    raise exception 'stage % of job % run % ended meanwhile', p_stage, p_job_id, p_run using errcode = 'CM001';
  end if;
  if v_limits is not null then
    perform "app".take_back_starts(v_limits, v_places);
  end if;
  update "app".tasks t
  set status = case when v_open then 'pending' else 'cancelled' end,
      finished_at = case when v_open then null else v_now end,
      is_watched = t.is_watched and v_open,
      attempt = t.attempt - case when p_started then 0 else 1 end,
      interruptions = t.interruptions + case when p_started then 1 else 0 end,
      lease_id = null, lease_expires_at = null,
      announced_at = case when v_open and t.task_id <= p_until then v_now end
  where t.ctid = any (v_places);
  if p_started and v_open then
    v_failed := "app".fail_enders(p_job_id, p_run, p_stage, v_ids, v_most);
    v_ids := array(select named.id from "app".ids_in_order(v_ids) as named where named.id <> all (v_failed));
    if cardinality(v_failed) > 0 then
      perform "app".check_stage(p_job_id, p_run, p_stage, true, v_failed);
    end if;
  end if;
  if cardinality(v_ids) = 0 then
    return v_ids;
  elsif v_open then
    if p_started then
      perform "app".record_event(p_job_id, p_run, p_stage, null, 'tasks_released',
        jsonb_build_object('count', cardinality(v_ids)));
    end if;
    return v_ids;
  end if;
  perform "app".check_stage(p_job_id, p_run, p_stage, false, null);
  return array[]::text[];
end $$;

comment on function "app"."take_back_tasks"(p_job_id text, p_run integer, p_stage integer, p_shown integer) is 'Takes back the tasks of one stage whose lease has run out.';
comment on function "app"."take_back_tasks"(p_job_id text, p_run integer, p_stage integer) is 'Takes back tasks whose lease has run out, as a process of the release before calls it.';
comment on function "app"."interrupted_error"(p_job_id text, p_run integer, p_task_id text, p_attempt integer, p_interruptions integer, p_owner text, p_now timestamptz) is 'The error of a task that was interrupted too often: what was lost, its processes or its outcomes, and why.';
comment on function "app"."note_unwritten"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_reason text) is 'Notes in the job''s timeline that outcomes of tasks which still run under this lease could not be written, and why: their processes were not lost.';
comment on function "app"."note_step_unwritten"(p_job_id text, p_run integer, p_stage integer, p_step text, p_reason text) is 'Notes in the job''s timeline that the end of its step could not be written, and why; the same once in a minute.';
comment on function "app"."end_timed_out_attempts"(p_job_id text, p_run integer, p_stage integer, p_places tid[]) is 'Ends attempts that ran out of time and of their lease, and returns the tasks that have no attempt left and failed.';
comment on function "app"."release_tasks"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_started boolean) is 'Gives claimed tasks back before their lease runs out, and returns those that need a message again: give_back_tasks.';
comment on function "app"."fail_enders"(p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_most integer) is 'Fails those of the tasks, which a process that drains has just released, that seem to end their processes.';
comment on function "app"."give_back_tasks"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_started boolean, p_decides boolean, p_until text) is 'Gives claimed tasks back before their lease runs out, and returns those that are pending again.';

-- The janitor's finds: what waits for a message, for a new owner or for an end, and nobody else will give it. Each find
-- is one statement, skips rows that another transaction holds, and is bounded, so that any number of janitors may sweep
-- at once. A find of rows to announce holds them for p_hold_seconds: no other janitor announces them meanwhile, and if
-- this one dies, the next does.

-- Finds tasks that need a message and have none confirmed.
-- They are older than the grace that their planner has for sending it, or were taken back from a process and nobody is
-- about to announce them, or are due for another attempt. Tasks that wait in their stage's line need none:
-- find_idle_windows finds these.
create or replace function "app".find_unannounced_tasks(
  p_limit integer, p_grace_seconds double precision, p_hold_seconds double precision
) returns table (
  job_id text, run integer, stage integer, task_id text, queue text, attempt integer, job_type text,
  correlation_id text, tasks_per_message integer
)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
begin
  return query
  with found as (
    select t.job_id, t.run, t.task_id from "app".tasks t
    where t.status = 'pending' and not t.is_windowed and t.created_at < v_now - p_grace_seconds * interval '1 second'
      and (t.due_at is null or t.due_at <= v_now) and t.parked_at is null
    order by t.created_at limit p_limit for update skip locked
  ), taken_back as (
    select t.job_id, t.run, t.task_id from "app".tasks t
    where t.status = 'pending' and not t.is_windowed and t.created_at >= v_now - p_grace_seconds * interval '1 second'
      and t.attempt > 0 and (t.due_at is null or t.due_at <= v_now)
    order by t.created_at limit p_limit for update skip locked
  ), windowed as (
    select w.job_id, w.run, w.task_id from "app".find_unannounced_in_windows(p_limit, p_grace_seconds) w
  ), due as (
    select t.job_id, t.run, t.task_id from "app".tasks t
    where t.status = 'pending_retry' and t.announced_at is null and t.due_at <= v_now and t.parked_at is null
      and t.held_for is null
      and not ((t.status = 'pending_retry' and t.due_at <= v_now and t.announced_at is null and t.parked_at is null and t.held_for is null and t.waiting_for is null) and exists (
        select from "app".stages s
        where s.job_id = t.job_id and s.run = t.run and s.stage = t.stage and t.task_id <= s.window_after
          and s.settings ->> 'limits' is null
      ))
    order by t.due_at limit p_limit for update skip locked
  ), held as (
    update "app".tasks t set due_at = v_now + p_hold_seconds * interval '1 second'
    from (select * from found union all select * from taken_back union all select * from windowed) f
    where t.job_id = f.job_id and t.run = f.run and t.task_id = f.task_id
    returning t.job_id, t.run, t.stage, t.task_id, t.queue, t.attempt
  ), retried as (
    select t.job_id, t.run, t.stage, t.task_id, t.queue, t.attempt from "app".tasks t
    join due d on t.job_id = d.job_id and t.run = d.run and t.task_id = d.task_id
  )
  select h.job_id, h.run, h.stage, h.task_id, h.queue, h.attempt, j.job_type, j.correlation_id,
    coalesce((s.settings ->> 'tasks_per_message')::integer, 1)
  from (select * from held union all select * from retried) h
  join "app".jobs j on j.job_id = h.job_id
  join "app".stages s on s.job_id = h.job_id and s.run = h.run and s.stage = h.stage
  order by h.job_id, h.run, h.stage, h.task_id;
end $$;

-- Finds tasks that were taken into their stage's window and have no message confirmed; locked.
-- Their process may be about to send it. So a task without an attempt is found at once only if nobody took any of its
-- stage within the grace; else it is given the grace from now on, and found by a later sweep if it still waits.
-- Locks: task rows; those that another transaction holds are skipped.
create or replace function "app".find_unannounced_in_windows(p_limit integer, p_grace_seconds double precision)
returns table (job_id text, run integer, task_id text)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_grace interval := p_grace_seconds * interval '1 second';
begin
  return query
  with waiting as materialized (
    select o.* from (
      select s.job_id, s.run, s.stage, s.window_from, s.window_after, s.window_at
      from "app".jobs r
      join "app".stages s on s.job_id = r.job_id and s.run = r.run and s.stage = r.stage
      where r.status = 'processing' and r.paused_at is null and s.window_after <> ''
      order by random()
    ) w
    cross join lateral (
      -- adjust_job clears window_at.
      select t.job_id, t.run, t.task_id,
        t.due_at is null and t.attempt = 0 and coalesce(w.window_at > v_now - v_grace, true) as is_new
      from "app".tasks t
      where t.job_id = w.job_id and t.run = w.run and t.stage = w.stage and t.status in ('pending', 'queued', 'processing', 'pending_retry')
        and t.task_id >= w.window_from and t.task_id <= w.window_after and t.status = 'pending'
        and (t.due_at is null or t.due_at <= v_now) and t.parked_at is null and t.held_for is null
        and t.announced_at is null
      order by t.task_id limit p_limit for update skip locked
    ) o
    limit p_limit
  ), noted as (
    update "app".tasks t set due_at = v_now + v_grace from waiting w
    where w.is_new and t.job_id = w.job_id and t.run = w.run and t.task_id = w.task_id
  )
  select w.job_id, w.run, w.task_id from waiting w where not w.is_new;
end $$;

-- Finds jobs that wait for a step and have no message confirmed for it, or whose step was taken by a process that died.
-- One with a start_at was not announced when it was submitted: it is found as soon as its time has come. A step that a
-- living process takes is left to it; that a process died is an interruption of the step.
create or replace function "app".find_unannounced_jobs(
  p_limit integer, p_grace_seconds double precision, p_hold_seconds double precision
) returns table (job_id text, run integer, stage integer, attempt integer, job_type text, correlation_id text)
language plpgsql as $$
begin
  return query
  with found as (
    select j.job_id,
      coalesce("app".step_lease_seconds(j.step_lease, j.run, j.stage, j.status, j.attempt) <= 0, false)
        as is_interrupted
    from "app".jobs j
    where j.status in ('queued', 'finalizing') and j.paused_at is null
      and coalesce(
        "app".step_lease_seconds(j.step_lease, j.run, j.stage, j.status, j.attempt) <= 0,
        j.announced_at is null
          and (j.updated_at < "app".clock() - p_grace_seconds * interval '1 second' or j.start_at > j.updated_at))
      and (j.due_at is null or j.due_at <= "app".clock())
    order by j.updated_at limit p_limit for update skip locked
  )
  update "app".jobs j
  set due_at = "app".clock() + p_hold_seconds * interval '1 second', announced_at = null,
      step_lease = case when f.is_interrupted then "app".end_step_lease(j.job_id, j.step_lease) else j.step_lease end
  from found f where j.job_id = f.job_id
  returning j.job_id, j.run, j.stage, j.attempt, j.job_type, j.correlation_id;
end $$;

-- Finds tasks whose message is lost: it was confirmed before the oldest message of their queue came there.
-- p_before is that arrival minus a grace, since confirmations are this database's time and arrivals the broker's. A
-- message that was scheduled for due_at counts from then. A found row is held as if it had just been announced. It
-- looks at up to ten times p_limit open tasks of one job and a hundred times p_limit of all jobs, taken in random
-- order, since a stage may hold a million tasks that are not lost.
create or replace function "app".find_lost_tasks(
  p_queue text, p_limit integer, p_before timestamptz
) returns table (
  job_id text, run integer, stage integer, task_id text, queue text, attempt integer, job_type text,
  correlation_id text, tasks_per_message integer
)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
begin
  return query
  with looked_at as materialized (
    select o.*
    from (
      select r.job_id, r.run, r.stage from "app".jobs r where r.status = 'processing' and r.paused_at is null
      order by random()
    ) j
    cross join lateral (
      select t.job_id, t.run, t.task_id, t.queue, t.status, t.due_at, t.announced_at, t.parked_at from "app".tasks t
      where t.job_id = j.job_id and t.run = j.run and t.stage = j.stage
        and t.status in ('pending', 'queued', 'processing', 'pending_retry')
      order by t.task_id limit p_limit * 10
    ) o
    limit p_limit * 100
  ), lost as materialized (
    select t.job_id, t.run, t.task_id
    from (
      select o.job_id, o.run, o.task_id from looked_at o
      where o.queue = p_queue and o.status in ('queued', 'pending_retry') and o.parked_at is null
        and greatest(o.announced_at, o.due_at) < p_before and o.announced_at is not null
      limit p_limit
    ) s
    join "app".tasks t on t.job_id = s.job_id and t.run = s.run and t.task_id = s.task_id
    where t.status in ('queued', 'pending_retry') and t.announced_at is not null and t.parked_at is null
      and greatest(t.announced_at, t.due_at) < p_before
    for update of t skip locked
  ), held as (
    update "app".tasks t set announced_at = v_now
    from lost l where t.job_id = l.job_id and t.run = l.run and t.task_id = l.task_id
    returning t.job_id, t.run, t.stage, t.task_id, t.queue, t.attempt
  )
  select h.job_id, h.run, h.stage, h.task_id, h.queue, h.attempt, j.job_type, j.correlation_id,
    coalesce((s.settings ->> 'tasks_per_message')::integer, 1)
  from held h
  join "app".jobs j on j.job_id = h.job_id
  join "app".stages s on s.job_id = h.job_id and s.run = h.run and s.stage = h.stage
  order by h.job_id, h.run, h.stage, h.task_id;
end $$;

-- Finds jobs whose step's message is lost, as find_lost_tasks does for tasks.
create or replace function "app".find_lost_jobs(p_limit integer, p_before timestamptz)
returns table (job_id text, run integer, stage integer, attempt integer, job_type text, correlation_id text)
language sql volatile as $$
  with lost as (
    select j.job_id from "app".jobs j
    where j.status in ('queued', 'finalizing') and j.paused_at is null and j.announced_at is not null
      and greatest(j.announced_at, j.due_at) < p_before
      and "app".step_lease_seconds(j.step_lease, j.run, j.stage, j.status, j.attempt) is null
    order by j.updated_at limit p_limit for update skip locked
  )
  update "app".jobs j set announced_at = "app".clock()
  from lost l where j.job_id = l.job_id
  returning j.job_id, j.run, j.stage, j.attempt, j.job_type, j.correlation_id
$$;

-- Finds stages with tasks whose lease has run out.
create or replace function "app".find_expired_stages(p_limit integer)
returns table (job_id text, run integer, stage integer)
language sql stable as $$
  select distinct e.job_id, e.run, e.stage from (
    select t.job_id, t.run, t.stage from "app".tasks t
    where t.status = 'processing' and t.lease_expires_at <= "app".clock()
    order by t.lease_expires_at limit p_limit
  ) e
$$;

-- Finds jobs that run though no task of their stage is open, and jobs that failed or were cancelled within the last hour
-- though a task of their stage waits: its row was held by another transaction when they ended.
-- It looks at one open task per job and never joins all of them: that is the reason for the limit within.
create or replace function "app".find_stalled_jobs(p_limit integer, p_grace_seconds double precision)
returns table (job_id text, run integer, stage integer)
language sql stable set enable_seqscan = off as $$
  (
    select j.job_id, j.run, j.stage from "app".jobs j
    where j.status in ('processing', 'cancelling')
      and j.updated_at < "app".clock() - p_grace_seconds * interval '1 second'
      and (
        select t.task_id from "app".tasks t
        where t.job_id = j.job_id and t.run = j.run and t.stage = j.stage
          and t.status in ('pending', 'queued', 'processing', 'pending_retry')
        order by t.task_id limit 1
      ) is null
    order by j.updated_at limit p_limit
  )
  union all
  (
    select j.job_id, j.run, j.stage from "app".jobs j
    where j.status in ('cancelled', 'failed')
      and j.finished_at > "app".clock() - interval '1 hour'
      and j.finished_at < "app".clock() - p_grace_seconds * interval '1 second'
      and (
        select t.status from "app".tasks t
        where t.job_id = j.job_id and t.run = j.run and t.stage = j.stage
          and t.status in ('pending', 'queued', 'processing', 'pending_retry')
        order by t.task_id limit 1
      ) in ('pending', 'queued', 'pending_retry')
    limit p_limit
  )
$$;

-- Decides again what a stage's last task decides, and returns whether the job moved.
-- Locks: the stage, then the job row.
create or replace function "app".resume_stalled_job(p_job_id text, p_run integer, p_stage integer) returns boolean
language plpgsql as $$
begin
  if "app".check_stage(p_job_id, p_run, p_stage, false, null) then
    perform "app".record_event(p_job_id, p_run, p_stage, null, 'janitor_closed_stage', null);
    return true;
  end if;
  if "app".advance_job_stage(p_job_id, p_run, p_stage) is not null then
    perform "app".record_event(p_job_id, p_run, p_stage, null, 'janitor_advanced_job', null);
    return true;
  end if;
  return false;
end $$;

-- Finds jobs that have been cancelling for longer than their grace.
create or replace function "app".find_overdue_cancels(p_limit integer)
returns table (job_id text, run integer, stage integer)
language sql stable as $$
  select j.job_id, j.run, j.stage from "app".jobs j
  where j.status = 'cancelling' and coalesce(j.cancel_deadline_at, j.updated_at + 300.0 * interval '1 second') <= "app".clock()
  order by j.updated_at limit p_limit
$$;

-- Brings times back that are later than they can be, since the database's clock was ahead when they were written: leases
-- of tasks and of steps, when a retry, or a job without a message, is due, what limits count, and when a message came to
-- a paused job. Each begins anew from now: what a living process has is renewed, and the rest is found as usual. Else a
-- clock that was five hours ahead costs five hours.
-- Returns how many rows; it looks at p_limit of each kind, the latest times. A minute is left for clocks that differ, as those of two servers do.
-- Locks: those of limits, then rows of tasks, then of jobs; rows that another transaction holds are skipped.
create or replace function "app".bring_times_back(p_limit integer) returns integer
language plpgsql set enable_seqscan = off set enable_sort = off set enable_bitmapscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_late timestamptz := v_now + interval '1 minute';
  v_limits integer := "app".bring_limits_back(p_limit);
  v_leases integer;
  v_retries integer;
  v_parked integer;
  v_jobs integer;
begin
  update "app".tasks t
  set lease_expires_at = v_now + l.seconds * interval '1 second', started_at = least(t.started_at, v_now)
  from (
    select h.place, f.seconds from (
      select o.place, (s.settings ->> 'lease_seconds')::double precision as seconds from (
        select n.ctid as place, n.job_id, n.run, n.stage, n.lease_expires_at from "app".tasks n
        where n.status = 'processing' and n.lease_expires_at > v_late
        order by n.lease_expires_at desc limit p_limit
      ) o
      join "app".stages s on s.job_id = o.job_id and s.run = o.run and s.stage = o.stage
      where o.lease_expires_at > v_late + (s.settings ->> 'lease_seconds')::double precision * interval '1 second'
      offset 0
    ) f
    cross join lateral (
      select n.ctid as place from "app".tasks n
      where n.ctid = f.place and n.status = 'processing' and n.lease_expires_at > v_late for update skip locked
    ) h
  ) l
  where t.ctid = l.place;
  get diagnostics v_leases = row_count;

  update "app".tasks t
  set due_at = v_now + greatest(t.due_at - t.started_at, interval '0'), started_at = v_now,
      announced_at = least(t.announced_at, v_now)
  from (
    select h.place from (
      select o.place from (
        select n.ctid as place, n.started_at from "app".tasks n
        where n.status = 'pending_retry' and n.due_at > v_late
        order by n.due_at desc limit p_limit
      ) o
      where o.started_at > v_late offset 0
    ) f
    cross join lateral (
      select n.ctid as place from "app".tasks n
      where n.ctid = f.place and n.status = 'pending_retry' and n.started_at > v_late for update skip locked
    ) h
  ) l
  where t.ctid = l.place;
  get diagnostics v_retries = row_count;

  update "app".tasks t set parked_at = v_now
  where t.ctid = any (array(
    -- One that is about to be announced is held for some minutes.
    select n.ctid from "app".tasks n where n.parked_at > v_late + interval '10 minutes'
    order by n.parked_at desc limit p_limit for update skip locked
  ));
  get diagnostics v_parked = row_count;

  update "app".jobs j
  set updated_at = least(j.updated_at, v_now), announced_at = least(j.announced_at, v_now),
      due_at = case when j.due_at > v_now and j.start_at is null and j.updated_at > v_late
        then v_now + greatest(j.due_at - j.updated_at, interval '0') else j.due_at end,
      step_lease = case when (j.step_lease ->> 'expires_at')::timestamptz > v_late
        then j.step_lease || jsonb_build_object('expires_at', v_now + interval '10 seconds') else j.step_lease end
  from (
    select n.ctid as place from "app".jobs n
    where n.status in ('queued', 'finalizing')
      and (n.updated_at > v_late or (n.step_lease ->> 'expires_at')::timestamptz > v_late)
    order by n.updated_at desc limit p_limit for update skip locked
  ) o
  where j.ctid = o.place;
  get diagnostics v_jobs = row_count;
  return v_limits + v_leases + v_retries + v_parked + v_jobs;
end $$;

comment on function "app"."find_unannounced_tasks"(p_limit integer, p_grace_seconds double precision, p_hold_seconds double precision) is 'Finds tasks that need a message and have none confirmed.';
comment on function "app"."find_unannounced_in_windows"(p_limit integer, p_grace_seconds double precision) is 'Finds tasks that were taken into their stage''s window and have no message confirmed; locked.';
comment on function "app"."find_unannounced_jobs"(p_limit integer, p_grace_seconds double precision, p_hold_seconds double precision) is 'Finds jobs that wait for a step and have no message confirmed for it, or whose step was taken by a process that died.';
comment on function "app"."find_lost_tasks"(p_queue text, p_limit integer, p_before timestamptz) is 'Finds tasks whose message is lost: it was confirmed before the oldest message of their queue came there.';
comment on function "app"."find_lost_jobs"(p_limit integer, p_before timestamptz) is 'Finds jobs whose step''s message is lost, as find_lost_tasks does for tasks.';
comment on function "app"."find_expired_stages"(p_limit integer) is 'Finds stages with tasks whose lease has run out.';
comment on function "app"."find_stalled_jobs"(p_limit integer, p_grace_seconds double precision) is 'Finds jobs that run though no task of their stage is open, and jobs that failed or were cancelled within the last hour though a task of their stage waits: its row was held by another transaction when they ended.';
comment on function "app"."resume_stalled_job"(p_job_id text, p_run integer, p_stage integer) is 'Decides again what a stage''s last task decides, and returns whether the job moved.';
comment on function "app"."find_overdue_cancels"(p_limit integer) is 'Finds jobs that have been cancelling for longer than their grace.';
comment on function "app"."bring_times_back"(p_limit integer) is 'Brings times back that are later than they can be, since the database''s clock was ahead when they were written: leases of tasks and of steps, when a retry, or a job without a message, is due, what limits count, and when a message came to a paused job.';

-- The end of a job: completed with its own summary, or failed or cancelled from outside its tasks.

-- Ends a job whose stages have all completed, with its summary. Returns its final status, or null.
-- Fence: the job is finalizing in this run, so a second caller changes nothing. Locks: the job row.
create or replace function "app".finalize_job(p_job_id text, p_run integer, p_result jsonb) returns text
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_now timestamptz := "app".clock();
  v_status text;
begin
  update "app".jobs j
  set status = case when exists (
        select 1 from "app".stages s where s.job_id = p_job_id and s.run = p_run and s.failed_count > 0
      ) then 'completed_with_errors' else 'completed' end,
      result = p_result, finished_at = v_now, updated_at = v_now, paused_at = null
  where j.job_id = p_job_id and j.run = p_run and j.status = 'finalizing'
  returning j.status into v_status;
  if found then
    perform "app".record_event(p_job_id, p_run, null, null, 'job_' || v_status, null);
    perform "app".note_job_event(p_job_id, p_run, 'job.' || v_status);
  elsif exists (
    select from "app".jobs j where j.job_id = p_job_id and j.run = p_run and j.status = 'finalizing'
  ) then
    perform "app".report_left_out('jobs');
  end if;
  return v_status;
end $$;

-- Fails a job from outside its tasks, wherever it is. False: it had ended. Locks: the stage, then the job row.
-- Raises CM001 when the job advanced to another stage between the look at it and the lock: call again.
create or replace function "app".fail_job(p_job_id text, p_run integer, p_error jsonb) returns boolean
language plpgsql as $$
declare
  v_stage integer := (select j.stage from "app".jobs j where j.job_id = p_job_id);
begin
  perform "app".lock_stage(p_job_id, p_run, v_stage);
  if exists (select from "app".jobs j where j.job_id = p_job_id and j.stage <> v_stage) then
    raise exception 'job % advanced meanwhile', p_job_id using errcode = 'CM001';
  end if;
  return "app".end_job(p_job_id, p_run, 'failed', p_error);
end $$;

-- Fails a job since an attempt at its step has failed: its planner or its finalizer raised. False: somebody else has taken
-- that step meanwhile, or has counted this attempt. p_attempt: the failed attempts before this one.
-- Fence: the job waits for that step of that run, as it did when the attempt began. Locks: the stage, then the job row.
create or replace function "app".fail_job_step(
  p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_error jsonb
) returns boolean
language plpgsql as $$
begin
  perform "app".lock_stage(p_job_id, p_run, p_stage);
  perform from "app".jobs j
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = p_status and j.attempt = p_attempt
    and j.status in ('queued', 'finalizing')
  for update;
  return found and "app".end_job(p_job_id, p_run, 'failed', p_error);
end $$;

-- Ends a job as failed or cancelled, its open stage with it, and cancels its tasks.
-- Task rows that another transaction holds are skipped and never waited for, which would reverse the order of locks:
-- they end as cancelled when they settle, are claimed, or lose their lease. Returns false when the job had ended.
-- Fence: the job has not ended in this run. Locks: the stage's lock is held by the caller; then the job row.
create or replace function "app".end_job(p_job_id text, p_run integer, p_status text, p_error jsonb) returns boolean
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
  v_stage integer;
begin
  update "app".jobs j
  set status = p_status, error = coalesce(p_error, j.error), finished_at = v_now, updated_at = v_now,
      paused_at = null
  where j.job_id = p_job_id and j.run = p_run
    and (j.status in ('queued', 'processing', 'finalizing') or (j.status = 'cancelling' and p_status = 'cancelled'))
  returning j.stage into v_stage;
  if not found then
    if exists (
      select from "app".jobs j
      where j.job_id = p_job_id and j.run = p_run
        and (j.status in ('queued', 'processing', 'finalizing') or (j.status = 'cancelling' and p_status = 'cancelled'))
    ) then
      perform "app".report_left_out('jobs');
    end if;
    return false;
  end if;
  update "app".stages s set status = p_status, finished_at = v_now
  where s.job_id = p_job_id and s.run = p_run and s.stage = v_stage and s.status in ('queued', 'processing');
  if not found and exists (
    select from "app".stages s
    where s.job_id = p_job_id and s.run = p_run and s.stage = v_stage and s.status in ('queued', 'processing')
  ) then
    perform "app".report_left_out('stages');
  end if;
  perform "app".cancel_open_tasks(p_job_id, p_run, v_stage, true);
  perform "app".drop_kept_places(p_job_id, p_run);
  perform "app".record_event(p_job_id, p_run, v_stage, null, 'job_' || p_status, p_error);
  perform "app".note_job_event(p_job_id, p_run, 'job.' || p_status);
  return true;
end $$;

comment on function "app"."finalize_job"(p_job_id text, p_run integer, p_result jsonb) is 'Ends a job whose stages have all completed, with its summary.';
comment on function "app"."fail_job"(p_job_id text, p_run integer, p_error jsonb) is 'Fails a job from outside its tasks, wherever it is.';
comment on function "app"."fail_job_step"(p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_error jsonb) is 'Fails a job since an attempt at its step has failed: its planner or its finalizer raised.';
comment on function "app"."end_job"(p_job_id text, p_run integer, p_status text, p_error jsonb) is 'Ends a job as failed or cancelled, its open stage with it, and cancels its tasks.';

-- Leases: an attempt's right to its task, extended by the heartbeats of its process; and the lease of who takes a job's
-- step, which is none to a task.

-- Extends leases that one process holds, of any jobs, and returns one row with an outcome for each that it still has.
-- Outcome: renewed; stop (the job or stage ended or is being cancelled: the lease is extended so that the task can end
-- in order); timed_out (it has run longer than its stage's task_timeout_seconds: the rest of the lease is for ending in
-- order, and the row notes the time). A lease without a row is lost: another attempt has the task, or it ended.
-- A row that somebody has locked is not waited for, since all other leases of the process would wait too: it counts as
-- renewed and stays as it is, and the next call finds out.
-- Fence: the lease. Locks: task rows by job and id, in that order. It decides nothing, so it may span jobs.
create or replace function "app".renew_leases(
  p_job_ids text[], p_runs integer[], p_task_ids text[], p_lease_ids uuid[], p_progress jsonb[]
) returns table (lease_id uuid, task_id text, outcome text)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_places tid[];
begin
  select array_agg(h.place) into v_places from (
    select * from unnest(p_job_ids, p_runs, p_task_ids, p_lease_ids) as a(job_id, run, task_id, lease_id)
    order by a.job_id collate "C", a.task_id collate "C"
  ) asked
  cross join lateral (
    select t.ctid as place from "app".tasks t
    where t.job_id = asked.job_id and t.run = asked.run and t.task_id = asked.task_id
      and t.status is not distinct from 'processing' and t.lease_id = asked.lease_id
    for update skip locked
  ) h;
  if cardinality(v_places) is distinct from cardinality(p_task_ids) then
    return query
    select asked.lease_id, asked.task_id, 'renewed'
    from unnest(p_job_ids, p_runs, p_task_ids, p_lease_ids) as asked(job_id, run, task_id, lease_id)
    cross join lateral (
      select t.ctid as place from "app".tasks t
      where t.job_id = asked.job_id and t.run = asked.run and t.task_id = asked.task_id
        and t.status is not distinct from 'processing' and t.lease_id = asked.lease_id
      offset 0
    ) h
    where h.place <> all (coalesce(v_places, array[]::tid[]));
  end if;
  return query
  update "app".tasks t
  set lease_expires_at = case when "app".is_task_timed_out(t.started_at, s.settings, v_now) then t.lease_expires_at
        else v_now + (s.settings ->> 'lease_seconds')::double precision * interval '1 second' end,
      timed_out_at = case when "app".is_task_timed_out(t.started_at, s.settings, v_now)
        then coalesce(t.timed_out_at, v_now) end,
      progress = coalesce(asked.progress, t.progress)
  from unnest(p_task_ids, p_lease_ids, p_progress) as asked(task_id, lease_id, progress),
    "app".stages s join "app".jobs j on j.job_id = s.job_id
  where t.ctid = any (v_places) and t.task_id = asked.task_id and t.lease_id = asked.lease_id
    and s.job_id = t.job_id and s.run = t.run and s.stage = t.stage
  returning t.lease_id, t.task_id,
    case when not (j.status = 'processing' and j.run = s.run and s.status = 'processing') then 'stop'
      when "app".is_task_timed_out(t.started_at, s.settings, v_now) then 'timed_out' else 'renewed' end;
  if "app".has_waited() then
    perform "app".begin_leases_now(p_task_ids, p_lease_ids, false);
  end if;
end $$;

-- Begins leases anew that a statement has given or extended with an old time, since it had waited: an expired lease, of a
-- process that lives, is taken back by the next sweep. p_is_claim: the attempt begins now, too.
-- Fence: the lease. Locks: the rows, which this transaction has written.
create or replace function "app".begin_leases_now(p_task_ids text[], p_lease_ids uuid[], p_is_claim boolean)
returns void
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
begin
  -- All that is leased by any process is read: only after somebody had locked a table.
  update "app".tasks t
  set lease_expires_at = v_now + (s.settings ->> 'lease_seconds')::double precision * interval '1 second',
      started_at = case when p_is_claim then v_now else t.started_at end
  from "app".stages s
  where t.status = 'processing' and t.timed_out_at is null
    and (t.task_id, t.lease_id) in (select * from unnest(p_task_ids, p_lease_ids))
    and s.job_id = t.job_id and s.run = t.run and s.stage = t.stage;
end $$;

-- Extends all leases under an owner's name: for the stand-in of a process that cannot ask itself.
-- It also covers a claim whose answer was lost. seconds_left is of the lease as it is now.
-- Fence: the leases as found; one that another attempt got in between is left alone. Locks: those of renew_leases.
create or replace function "app".renew_leases_of_owner(p_owner text)
returns table (job_id text, task_id text, outcome text, seconds_left double precision)
language plpgsql set enable_seqscan = off as $$
declare
  v_found record;
  v_renewed record;
begin
  -- All that is leased by any process is read: once in some seconds, and only while a process is blocked.
  select array_agg(t.job_id) as job_ids, array_agg(t.run) as runs, array_agg(t.task_id) as task_ids,
         array_agg(t.lease_id) as lease_ids
  into v_found
  from "app".tasks t where t.status = 'processing' and t.lease_owner = p_owner;
  if v_found.job_ids is null then
    return;
  end if;
  select array_agg(r.lease_id) as lease_ids, array_agg(r.task_id) as task_ids, array_agg(r.outcome) as outcomes
  into v_renewed
  from "app".renew_leases(v_found.job_ids, v_found.runs, v_found.task_ids, v_found.lease_ids,
    array_fill(null::jsonb, array[cardinality(v_found.job_ids)])) r;
  return query
  select t.job_id, t.task_id, r.outcome,
    extract(epoch from t.lease_expires_at - "app".clock())::double precision
  from unnest(v_renewed.lease_ids, v_renewed.task_ids, v_renewed.outcomes) as r(lease_id, task_id, outcome)
  join unnest(v_found.job_ids, v_found.runs, v_found.task_ids, v_found.lease_ids) as f(job_id, run, task_id, lease_id)
    on f.task_id = r.task_id and f.lease_id = r.lease_id
  cross join lateral (
    select x.job_id, x.task_id, x.lease_expires_at from "app".tasks x
    where x.job_id = f.job_id and x.run = f.run and x.task_id = r.task_id and x.lease_id = r.lease_id offset 0
  ) t;
end $$;

-- The tasks of a stage that this lease holds, in order, as a claim returns them.
-- All that is leased by any process is read: only where an answer may have been lost.
create or replace function "app".tasks_of_lease(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid)
returns table (
  task_id text, attempt integer, interruptions integer, task_type text, task_index integer, name text, parameters jsonb
)
language plpgsql stable set enable_seqscan = off as $$
begin
  return query
  select t.task_id, t.attempt, t.interruptions, t.task_type, t.task_index, t.name, t.parameters from "app".tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status = 'processing'
    and t.lease_id = p_lease_id
  order by t.task_id;
end $$;

-- Extends the lease of the process that takes a job's step: plans its stage, or makes its summary. False: the job does
-- not wait for that step any more, or another process has its lease. A row that somebody has locked is not waited for, as
-- in renew_leases.
-- Fence: the step, and the lease. Locks: the job row.
create or replace function "app".renew_step_lease(
  p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_owner text,
  p_seconds double precision
) returns boolean
language plpgsql as $$
begin
  perform from "app".jobs j where j.job_id = p_job_id for no key update skip locked;
  if not found then
    return exists (select from "app".jobs j where j.job_id = p_job_id);
  end if;
  update "app".jobs j
  set step_lease = case
    when j.step_lease ->> 'owner' = p_owner
      and "app".step_lease_seconds(j.step_lease, p_run, p_stage, p_status, p_attempt) is not null
    then j.step_lease || jsonb_build_object('expires_at', "app".clock() + p_seconds * interval '1 second')
    else "app".new_step_lease(j.step_lease, p_run, p_stage, p_status, p_attempt, p_owner, p_seconds) end
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = p_status and j.attempt = p_attempt
    and j.status in ('queued', 'finalizing')
    and (j.step_lease ->> 'owner' = p_owner
      or coalesce("app".step_lease_seconds(j.step_lease, p_run, p_stage, p_status, p_attempt) <= 0, true));
  return found;
end $$;

-- Gives a step that was begun before to the process that takes it again, with a lease from its begin. No row: the job
-- does not wait for that step any more, or a living process has its lease.
-- interruptions: how many processes ended while they had this step; alone: how many of them did nothing else; owner: the
-- last of them.
-- Fence: the step, and the lease. Locks: the job row.
create or replace function "app".take_step_again(
  p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_owner text,
  p_seconds double precision, p_is_alone boolean
) returns table (interruptions integer, alone integer, owner text)
language plpgsql as $$
declare
  v_lease jsonb;
  v_left double precision;
begin
  select j.step_lease into v_lease from "app".jobs j
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = p_status and j.attempt = p_attempt
    and j.status in ('queued', 'finalizing') and j.paused_at is null
  for no key update;
  if not found then
    return;
  end if;
  v_left := "app".step_lease_seconds(v_lease, p_run, p_stage, p_status, p_attempt);
  if v_left > 0 and v_lease ->> 'owner' <> p_owner then
    return;
  elsif v_left <= 0 and v_lease ->> 'owner' <> p_owner then
    v_lease := "app".end_step_lease(p_job_id, v_lease);
  end if;
  owner := v_lease ->> 'lost';
  v_lease := "app".new_step_lease(v_lease, p_run, p_stage, p_status, p_attempt, p_owner, p_seconds);
  update "app".jobs j set step_lease = v_lease || jsonb_build_object('is_alone', p_is_alone)
  where j.job_id = p_job_id;
  interruptions := coalesce((v_lease ->> 'interruptions')::integer, 0);
  alone := coalesce((v_lease ->> 'alone')::integer, 0);
  return next;
end $$;

-- A lease of a step, as its job's row has it. What is noted of processes that ended over the same step is kept.
create or replace function "app".new_step_lease(
  p_before jsonb, p_run integer, p_stage integer, p_status text, p_attempt integer, p_owner text,
  p_seconds double precision
) returns jsonb
language sql stable as $$
  select jsonb_build_object('owner', p_owner, 'since', "app".clock(), 'at', a.at,
      'expires_at', "app".clock() + p_seconds * interval '1 second')
    || case when p_before -> 'at' = a.at
      then jsonb_strip_nulls(jsonb_build_object(
        'interruptions', p_before -> 'interruptions', 'alone', p_before -> 'alone', 'lost', p_before -> 'lost'))
      else jsonb_build_object() end
  from (
    select jsonb_build_object('run', p_run, 'stage', p_stage, 'status', p_status, 'attempt', p_attempt) as at
  ) a
$$;

-- Counts an interruption of a step, since the lease of its process has run out. Returns what is noted of it from then on.
-- Locks: the caller has the job row, and writes the note there.
create or replace function "app".end_step_lease(p_job_id text, p_lease jsonb) returns jsonb
language plpgsql as $$
declare
  v_count integer := coalesce((p_lease ->> 'interruptions')::integer, 0) + 1;
  v_alone integer := coalesce((p_lease ->> 'alone')::integer, 0);
begin
  if (p_lease ->> 'is_alone')::boolean then
    v_alone := v_alone + 1;
  end if;
  perform "app".record_event(p_job_id, (p_lease -> 'at' ->> 'run')::integer, (p_lease -> 'at' ->> 'stage')::integer,
    null, 'job_step_interrupted', jsonb_build_object('interruptions', v_count, 'owner', p_lease ->> 'owner'));
  return p_lease || jsonb_build_object(
    'has_ended', true, 'interruptions', v_count, 'alone', v_alone, 'lost', p_lease ->> 'owner');
end $$;

-- Ends a step's lease: another process may take the step at once. Returns whether there was one.
-- What is noted of processes that ended over the step stays as long as the job waits for it.
-- Fence: the lease. Locks: the job row.
create or replace function "app".release_step_lease(
  p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_owner text
) returns boolean
language plpgsql as $$
begin
  update "app".jobs j set step_lease = case
    when j.step_lease ->> 'interruptions' is not null
      and (j.run, j.stage, j.status, j.attempt) = (p_run, p_stage, p_status, p_attempt)
    then j.step_lease || jsonb_build_object('has_ended', true) end
  where j.job_id = p_job_id and j.step_lease ->> 'owner' = p_owner
    and "app".step_lease_seconds(j.step_lease, p_run, p_stage, p_status, p_attempt) is not null;
  return found;
end $$;

-- Whether a process that lives takes the step.
create or replace function "app".is_step_leased(
  p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer
) returns boolean
language sql stable as $$
  select coalesce((
    select "app".step_lease_seconds(j.step_lease, p_run, p_stage, p_status, p_attempt) > 0
    from "app".jobs j where j.job_id = p_job_id
  ), false)
$$;

comment on function "app"."renew_leases"(p_job_ids text[], p_runs integer[], p_task_ids text[], p_lease_ids uuid[], p_progress jsonb[]) is 'Extends leases that one process holds, of any jobs, and returns one row with an outcome for each that it still has.';
comment on function "app"."begin_leases_now"(p_task_ids text[], p_lease_ids uuid[], p_is_claim boolean) is 'Begins leases anew that a statement has given or extended with an old time, since it had waited: an expired lease, of a process that lives, is taken back by the next sweep.';
comment on function "app"."renew_leases_of_owner"(p_owner text) is 'Extends all leases under an owner''s name: for the stand-in of a process that cannot ask itself.';
comment on function "app"."tasks_of_lease"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid) is 'The tasks of a stage that this lease holds, in order, as a claim returns them.';
comment on function "app"."renew_step_lease"(p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_owner text, p_seconds double precision) is 'Extends the lease of the process that takes a job''s step: plans its stage, or makes its summary.';
comment on function "app"."take_step_again"(p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_owner text, p_seconds double precision, p_is_alone boolean) is 'Gives a step that was begun before to the process that takes it again, with a lease from its begin.';
comment on function "app"."new_step_lease"(p_before jsonb, p_run integer, p_stage integer, p_status text, p_attempt integer, p_owner text, p_seconds double precision) is 'A lease of a step, as its job''s row has it.';
comment on function "app"."end_step_lease"(p_job_id text, p_lease jsonb) is 'Counts an interruption of a step, since the lease of its process has run out.';
comment on function "app"."release_step_lease"(p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_owner text) is 'Ends a step''s lease: another process may take the step at once.';
comment on function "app"."is_step_leased"(p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer) is 'Whether a process that lives takes the step.';

-- Limits: how many tasks run at once, and how many begin in a time, over all stages that name the same limit.
-- A task of such a stage has a place in each of its limits from its claim until its row leaves `processing`, in every
-- way out: the place is freed by a trigger, in the same transaction. So a place is lost or leaked as little as a
-- lease is. What is announced has a place kept for it for a while, so that no more is announced than may run; a claim is
-- the wall. docs/adr/0035-limits-are-places-in-postgresql.md has the reasons.

-- The names of a stage's limits, from its settings; null if it has none.
create or replace function "app".limit_names(p_settings jsonb) returns text[]
language sql immutable as $$
  select array_agg(l.value ->> 'name')
  from jsonb_array_elements(case when p_settings ->> 'limits' is not null then p_settings -> 'limits' end) l
$$;

-- Writes the rows of a stage's limits that are not there, with the numbers that the stage declares.
-- A row that is there takes them if no operator chose its numbers, and it has none or p_is_newest: the stage was planned
-- just now. Locks: the limits' rows, then those of their starts.
create or replace function "app".ensure_limits(p_settings jsonb, p_is_newest boolean) returns void
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
  v_changed record;
begin
  insert into "app".limits as l (name, at_once, rate_count, rate_seconds, created_at, used_at)
  select d.value ->> 'name', (d.value ->> 'at_once')::integer, (d.value -> 'rate' ->> 'count')::integer,
    (d.value -> 'rate' ->> 'seconds')::double precision, v_now, v_now
  from jsonb_array_elements(p_settings -> 'limits') d order by 1
  on conflict (name) do nothing;
  for v_changed in
    update "app".limits l
    set at_once = (d.value ->> 'at_once')::integer, rate_count = (d.value -> 'rate' ->> 'count')::integer,
        rate_seconds = (d.value -> 'rate' ->> 'seconds')::double precision
    from jsonb_array_elements(p_settings -> 'limits') d
    where l.name = d.value ->> 'name' and not l.is_edited
      and (p_is_newest or not "app".has_numbers(l.at_once, l.rate_count))
      and "app".has_numbers((d.value ->> 'at_once')::integer, (d.value -> 'rate' ->> 'count')::integer)
      and (l.at_once, l.rate_count, l.rate_seconds) is distinct from ((d.value ->> 'at_once')::integer,
        (d.value -> 'rate' ->> 'count')::integer, (d.value -> 'rate' ->> 'seconds')::double precision)
    returning l.name, l.rate_seconds
  loop
    if v_changed.rate_seconds is not null then
      perform "app".move_starts(v_changed.name, v_changed.rate_seconds);
    end if;
  end loop;
  update "app".limits l set used_at = v_now
  where l.name = any ("app".limit_names(p_settings)) and l.used_at < v_now - interval '10 minutes';
end $$;

-- Whether a limit has numbers; a declaration may only name it.
create or replace function "app".has_numbers(p_at_once integer, p_rate_count integer) returns boolean
language sql immutable as $$
  select p_at_once is not null or p_rate_count is not null
$$;

-- How limits are used, one row each: places that are held, places that are kept for announced tasks, how many tasks
-- began in the last period, and how many more may begin now. Those of p_own_ids, of one job, are not counted.
-- room is 0 or less where none may, and null for a limit without numbers. frees_at: when a rate that is used up lets another
-- begin. next_at: the same, if only the rate is in the way and nothing is about to begin, which would look again.
create or replace function "app".look_at_limits(
  p_names text[], p_job_id text, p_run integer, p_own_ids text[], p_now timestamptz
) returns table (
  name text, at_once integer, rate_count integer, rate_seconds double precision, held integer, reserved integer,
  begun integer, room integer, next_at timestamptz, frees_at timestamptz
)
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
begin
  return query
  select u.name, u.at_once, u.rate_count, u.rate_seconds, u.held, u.reserved, u.begun,
    least(u.at_once - u.held - u.reserved, u.rate_count - u.begun - u.reserved),
    case when u.reserved = 0 and (u.held < u.at_once) is not false then u.frees_at end, u.frees_at
  from (
    select l.name, l.at_once, l.rate_count, l.rate_seconds, p.held, p.reserved, b.begun,
      case when l.rate_count > 0 and l.rate_count <= b.begun then
        b.freeing_ends_at + l.rate_seconds * interval '1 second' + interval '1 millisecond'
      end as frees_at
    from unnest(p_names) as asked(name)
    join "app".limits l on l.name = asked.name
    cross join lateral (
      select count(*) filter (where s.has_begun)::integer as held,
        count(*) filter (where not s.has_begun)::integer as reserved
      from "app".limit_places s
      where s.limit_name = l.name and (s.ends_at is null or s.ends_at > p_now)
        and (s.job_id = p_job_id and s.run = p_run and s.task_id = any (p_own_ids)) is not true
    ) p
    cross join lateral (
      -- A rate that was lowered may have to wait for more than its oldest starts.
      select coalesce(sum(e.count), 0)::integer as begun,
        min(e.ends_at) filter (where e.later < l.rate_count) as freeing_ends_at
      from (
        select t.ends_at, t.count, sum(t.count) over (order by t.ends_at desc) - t.count as later
        from "app".limit_starts t
        where l.rate_count is not null and t.limit_name = l.name
          and t.ends_at > p_now - l.rate_seconds * interval '1 second'
      ) e
    ) b
  ) u;
end $$;

-- How many tasks of a stage its limits let begin now, and which of them lets the fewest.
-- room is null where none of them has numbers. Locks: the limits', which stay locked.
create or replace function "app".room_in_limits(
  p_settings jsonb, p_job_id text, p_run integer, p_own_ids text[], p_now timestamptz
) returns table (room integer, name text, next_at timestamptz)
language plpgsql as $$
declare
  v_names text[] := "app".limit_names(p_settings);
begin
  perform "app".lock_limits(v_names);
  if (
    select count(*) from "app".limits l
    where l.name = any (v_names) and (l.is_edited or "app".has_numbers(l.at_once, l.rate_count))
  ) < cardinality(v_names) then
    perform "app".ensure_limits(p_settings, false);
  end if;
  return query
  select l.room, l.name, l.next_at from "app".look_at_limits(v_names, p_job_id, p_run, p_own_ids, p_now) l
  order by l.room nulls last, l.next_at desc nulls first limit 1;
end $$;

-- When the twentieth of a rate's period ends that this moment is in.
create or replace function "app".end_of_start(p_at timestamptz, p_rate_seconds double precision)
returns timestamptz
language sql immutable as $$
  select greatest(p_at, to_timestamp(
    ceil(extract(epoch from p_at) / (p_rate_seconds / 20)::numeric) * (p_rate_seconds / 20)::numeric))
$$;

-- Counts the starts of a limit whose period has become shorter as of now, where they would count for longer than that: each
-- is counted by the end of a twentieth of the period that it was in. So none is forgotten, and a new rate counts at once.
-- Locks: the rows of the starts.
create or replace function "app".move_starts(p_name text, p_rate_seconds double precision) returns void
language plpgsql as $$
declare
  v_ends_at timestamptz := "app".end_of_start("app".clock(), p_rate_seconds);
begin
  with moved as (
    delete from "app".limit_starts e where e.limit_name = p_name and e.ends_at > v_ends_at returning e.count
  )
  insert into "app".limit_starts as e (limit_name, ends_at, count)
  select p_name, v_ends_at, sum(m.count)::integer from moved m having count(*) > 0
  on conflict (limit_name, ends_at) do update set count = e.count + excluded.count;
end $$;

-- Lets tasks that were scheduled for the time at which a limit's old rate had room wait for their turn again, ahead of
-- what is in line; their messages find that they run, have ended, or wait still.
-- Locks: the limit's is held by the caller; task rows by id.
create or replace function "app".forget_scheduled_starts(p_name text) returns void
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_places tid[];
begin
  select array_agg(w.place) into v_places from (
    select p.job_id, p.run, p.task_id from "app".limit_places p
    where p.limit_name = p_name and not p.has_begun order by 1, 2, 3
  ) kept
  cross join lateral (
    select t.ctid as place from "app".tasks t
    where t.job_id = kept.job_id and t.run = kept.run and t.task_id = kept.task_id and t.status = 'pending_retry'
      and t.held_for = p_name and t.due_at > v_now and t.parked_at is null
    for update
  ) w;
  if v_places is null then
    return;
  end if;
  delete from "app".limit_places s using "app".tasks t
  where t.ctid = any (v_places) and s.job_id = t.job_id and s.run = t.run and s.task_id = t.task_id
    and not s.has_begun;
  update "app".tasks t set due_at = v_now, announced_at = null where t.ctid = any (v_places);
end $$;

-- Gives claimed tasks their places, and counts their starts.
-- A start is counted in the twentieth of the period that it is in, by that time's end: so never too early.
-- Locks: the limits' are held by the caller.
create or replace function "app".take_places(
  p_settings jsonb, p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_now timestamptz
) returns void
language plpgsql as $$
declare
  v_names text[] := "app".limit_names(p_settings);
  v_count integer;
begin
  insert into "app".limit_places as s (job_id, run, task_id, limit_name, stage, has_begun, ends_at)
  select p_job_id, p_run, t.id, n.name, p_stage, true, null
  from unnest(p_task_ids) as t(id) cross join unnest(v_names) as n(name)
  on conflict (job_id, run, task_id, limit_name) do update set has_begun = true, ends_at = null;
  get diagnostics v_count = row_count;
  if v_count < cardinality(p_task_ids) * cardinality(v_names) then
    perform "app".report_left_out('limit_places');
  end if;
  delete from "app".limit_starts e using "app".limits l
  where l.name = any (v_names) and e.limit_name = l.name
    and e.ends_at <= p_now - l.rate_seconds * interval '1 second';
  insert into "app".limit_starts as e (limit_name, ends_at, count)
  select l.name, "app".end_of_start(p_now, l.rate_seconds), cardinality(p_task_ids)
  from "app".limits l where l.name = any (v_names) and l.rate_count is not null
  on conflict (limit_name, ends_at) do update set count = e.count + excluded.count;
end $$;

-- Takes the starts of claimed tasks back that no handler began: their rates are for those that do. One that was counted
-- under another period stays.
-- Locks: the limits' and the rows at these places are held by the caller.
create or replace function "app".take_back_starts(p_names text[], p_places tid[]) returns void
language plpgsql set enable_seqscan = off as $$
begin
  update "app".limit_starts e set count = e.count - c.count
  from (
    select l.name, "app".end_of_start(t.started_at, l.rate_seconds) as ends_at, count(*)::integer as count
    from "app".limits l cross join "app".tasks t
    where l.name = any (p_names) and l.rate_count is not null and t.ctid = any (p_places)
    group by 1, 2
  ) c
  where e.limit_name = c.name and e.ends_at = c.ends_at and e.count >= c.count;
end $$;

-- Puts tasks whose message came while a limit had no place back to those that wait, without a message.
-- They are pending, or, if another attempt was due, still pending_retry. Their stage waits for its turn.
-- Locks: the limits' and the rows at these places are held by the caller.
create or replace function "app".hold_back_tasks(
  p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_places tid[], p_limit_name text
) returns void
language plpgsql set enable_seqscan = off as $$
begin
  update "app".tasks t
  set held_for = p_limit_name, announced_at = null, parked_at = null,
      status = case t.status when 'queued' then 'pending' else t.status end,
      due_at = case t.status when 'pending_retry' then t.due_at end
  where t.ctid = any (p_places);
  delete from "app".limit_places s
  where s.job_id = p_job_id and s.run = p_run and s.task_id = any (p_task_ids) and not s.has_begun;
  perform "app".wait_for_limit(p_job_id, p_run, p_stage, p_limit_name);
end $$;

-- Lets a stage wait for a limit: behind those that were served less, and not before those that wait already.
create or replace function "app".wait_for_limit(p_job_id text, p_run integer, p_stage integer, p_limit_name text)
returns void
language sql as $$
  insert into "app".limit_waiters as w (job_id, run, stage, limit_name, turn)
  select p_job_id, p_run, p_stage, l.name, l.turn from "app".limits l where l.name = p_limit_name
  on conflict (job_id, run, stage) do update set limit_name = excluded.limit_name, turn = excluded.turn
  where w.limit_name <> excluded.limit_name
$$;

-- Frees the places of a task whose attempt is over. Those that keep_places has given an end stay until then.
create or replace function "app".free_places() returns trigger
language plpgsql as $$
begin
  delete from "app".limit_places s
  where s.job_id = old.job_id and s.run = old.run and s.task_id = old.task_id and s.has_begun and s.ends_at is null;
  return null;
end $$;

create or replace trigger free_places after update of status on "app".tasks for each row
when (old.is_limited and old.status = 'processing' and new.status <> 'processing')
execute function "app".free_places();

-- Keeps the places of running tasks that are about to be cut off until their leases would have ended: their handlers
-- learn of it only at a heartbeat, and may still be at what the limit protects.
-- Locks: the rows at these places are held by the caller.
create or replace function "app".keep_places(p_places tid[]) returns void
language plpgsql set enable_seqscan = off as $$
begin
  update "app".limit_places s set ends_at = t.lease_expires_at
  from "app".tasks t
  where t.ctid = any (p_places) and t.is_limited and t.status = 'processing'
    and s.job_id = t.job_id and s.run = t.run and s.task_id = t.task_id and s.has_begun;
end $$;

-- Frees the places that are kept for announced tasks of a job which begins no more: others need not wait until their time
-- is over. Rows that another transaction holds are left, which may wait for the job's own.
create or replace function "app".drop_kept_places(p_job_id text, p_run integer) returns void
language sql as $$
  delete from "app".limit_places p
  where p.ctid in (
    select o.ctid from "app".limit_places o
    where o.job_id = p_job_id and o.run = p_run and not o.has_begun and o.ends_at is not null
    for update skip locked
  )
$$;

-- Takes the next tasks of a stage with limits, as many as these let begin, and keeps places for them.
-- Those that were held back come first, then those in line; take_next_tasks has the rules of its window. Where only a
-- rate is in the way, one task is taken for the time at which it lets the next begin, at most a minute from now: its
-- message is to be scheduled (wait_seconds), and the process that gets it takes the next ones.
-- Fence: the stage is open, and its job is not paused. Locks: the window's, the limits', task rows by id, then the stage
-- row.
create or replace function "app".take_limited_tasks(
  p_job_id text, p_run integer, p_stage integer
) returns table (
  job_id text, run integer, stage integer, task_id text, queue text, attempt integer, job_type text,
  correlation_id text, tasks_per_message integer, mark_each integer, wait_seconds double precision
)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
#variable_conflict use_column
declare
  v_now timestamptz := "app".clock();
  v_window record;
  v_limit record;
  v_again record;
  v_next record;
  v_look record;
  v_per_message integer;
  v_room integer;
  v_wait double precision := 0;
  v_ids text[];
begin
  perform "app".lock_window(p_job_id, p_run, p_stage);
  select s.window_after, s.window_from, s.window_size, s.window_open, s.window_at, s.settings, j.job_type,
    j.correlation_id, "app".window_weight(coalesce(j.priority, j.definition ->> 'priority')) as weight
  into v_window
  from "app".stages s join "app".jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.window_after is not null
    and (j.status = 'processing' and j.run = s.run and s.status = 'processing') and j.paused_at is null and s.settings ->> 'limits' is not null;
  if not found then
    perform "app".pass_over_waiter(p_job_id, p_run, p_stage);
    return;
  end if;
  if v_window.settings ->> 'max_parallel' is null then
    perform set_config('synchronous_commit', 'off', true);
  end if;
  v_per_message := coalesce((v_window.settings ->> 'tasks_per_message')::integer, 1);
  select l.room, l.name, l.next_at into v_limit
  from "app".room_in_limits(v_window.settings, p_job_id, p_run, null, v_now) l;
  v_room := coalesce(v_limit.room, 2147483647);
  if v_room <= 0 and v_limit.next_at < v_now + interval '1 minute' then
    v_room := 1;
    v_wait := greatest(extract(epoch from v_limit.next_at - v_now), 0);
  end if;
  perform "app".wait_for_limit(p_job_id, p_run, p_stage, v_limit.name);
  if v_room <= 0 then
    return;
  end if;

  select array_agg(h.task_id) as ids, array_agg(h.queue) as queues, array_agg(h.attempt) as attempts,
    array_agg(h.place) as places, count(*)::integer as count
  into v_again
  from (
    select t.task_id, t.queue, t.attempt, t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ('pending', 'queued', 'processing', 'pending_retry')
      and t.task_id >= v_window.window_from and t.task_id <= v_window.window_after and t.held_for is not null
      and t.parked_at is null and (t.status = 'pending' or (t.status = 'pending_retry' and t.due_at <= v_now))
    order by t.task_id limit v_room for update
  ) h;
  select w.room, w.size, w.open_count, w.first_id into v_look
  from "app".look_at_window(p_job_id, p_run, p_stage, v_window.window_from, v_window.window_after,
    v_window.window_size, v_window.window_open, v_window.window_at, v_per_message, v_window.weight,
    coalesce((v_window.settings ->> 'max_parallel')::integer, 2147483647), v_now) w;
  select array_agg(n.task_id) as ids, array_agg(n.queue) as queues, array_agg(n.attempt) as attempts,
    count(*)::integer as count
  into v_next
  from "app".tasks_in_line(p_job_id, p_run, p_stage, v_window.window_after,
    greatest(least(v_room - v_again.count, v_look.room), 0)) n;

  v_ids := coalesce(v_again.ids || v_next.ids, array[]::text[]);
  update "app".tasks t
  set held_for = case when v_wait > 0 then v_limit.name end,
      status = case when v_wait > 0 then 'pending_retry' else t.status end,
      due_at = case when v_wait > 0 then v_limit.next_at when t.status = 'pending_retry' then t.due_at end
  where t.ctid = any (v_again.places)
    or (v_wait > 0 and t.ctid = any ("app".places_of_tasks(p_job_id, p_run, v_ids)));
  if v_next.count > 0 then
    update "app".stages s
    set window_after = v_next.ids[v_next.count], window_from = coalesce(v_look.first_id, v_window.window_after),
        window_size = v_look.size, window_at = v_now, window_open = v_look.open_count + v_next.count
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  end if;
  insert into "app".limit_places as s (job_id, run, task_id, limit_name, stage, has_begun, ends_at)
  select p_job_id, p_run, t.id, n.name, p_stage, false, v_now + (v_wait + 30) * interval '1 second'
  from unnest(v_ids) as t(id) cross join unnest("app".limit_names(v_window.settings)) as n(name)
  on conflict (job_id, run, task_id, limit_name) do update set ends_at = excluded.ends_at where not s.has_begun;
  perform "app".serve_in_turn(p_job_id, p_run, p_stage, greatest(cardinality(v_ids), 1) / v_window.weight,
    v_look.room > v_next.count and v_again.count + v_next.count < v_room);
  return query
  select p_job_id, p_run, p_stage, t.id, t.queue, t.attempt, v_window.job_type, v_window.correlation_id, v_per_message,
    1, v_wait
  from unnest(v_ids, v_again.queues || v_next.queues, v_again.attempts || v_next.attempts)
    as t(id, queue, attempt);
end $$;

-- Lets the next stage have its turn: this one's job is paused, and it waits on behind the others; or it is over.
create or replace function "app".pass_over_waiter(p_job_id text, p_run integer, p_stage integer) returns void
language plpgsql as $$
begin
  update "app".limit_waiters w set turn = w.turn + 1
  where w.job_id = p_job_id and w.run = p_run and w.stage = p_stage and exists (
    select from "app".stages s join "app".jobs j on j.job_id = s.job_id
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and (j.status = 'processing' and j.run = s.run and s.status = 'processing')
  );
  if not found then
    delete from "app".limit_waiters w where w.job_id = p_job_id and w.run = p_run and w.stage = p_stage;
  end if;
end $$;

-- Notes that a stage was served, and whether all its tasks were: then it waits no more.
create or replace function "app".serve_in_turn(
  p_job_id text, p_run integer, p_stage integer, p_share double precision, p_is_done boolean
) returns void
language plpgsql as $$
begin
  update "app".limits l set turn = w.turn from "app".limit_waiters w
  where w.job_id = p_job_id and w.run = p_run and w.stage = p_stage and l.name = w.limit_name and l.turn < w.turn;
  if p_is_done then
    delete from "app".limit_waiters w where w.job_id = p_job_id and w.run = p_run and w.stage = p_stage;
  else
    update "app".limit_waiters w set turn = w.turn + p_share
    where w.job_id = p_job_id and w.run = p_run and w.stage = p_stage;
  end if;
end $$;

-- Finds stages that wait for limits which have room, or whose rate lets one be scheduled: in turn, up to p_limit of each
-- limit and no more than it has room for.
-- p_names null: of all limits, in random order.
create or replace function "app".find_limit_waiters(p_names text[], p_limit integer)
returns table (job_id text, run integer, stage integer)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
  v_now timestamptz := "app".clock();
begin
  return query
  select w.job_id, w.run, w.stage
  from (
    select n.name from unnest(coalesce(p_names, array(
      select distinct o.limit_name from "app".limit_waiters o
    ))) as n(name)
    order by random() limit 1000
  ) asked
  cross join lateral "app".look_at_limits(array[asked.name], null, null, null, v_now) l
  cross join lateral (
    select x.job_id, x.run, x.stage from "app".limit_waiters x
    where x.limit_name = asked.name and ((l.room > 0) is not false or l.next_at is not null)
    order by x.turn, x.job_id limit least(p_limit, greatest(l.room, 1))
  ) w;
end $$;

-- Chooses the numbers of a limit, for all stages that name it, from now on; null: any number.
-- Tasks that run are left alone where the new number is lower: none begins until fewer run. The change is in the audit
-- log. Locks: the limit's, then its row, those of its starts, and tasks that were scheduled by its old rate.
create or replace function "app".set_limit(
  p_name text, p_at_once integer, p_rate_count integer, p_rate_seconds double precision, p_reason text, p_actor text
) returns void
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
  v_before record;
begin
  perform "app".lock_limits(array[p_name]);
  select l.at_once, l.rate_count, l.rate_seconds into v_before from "app".limits l where l.name = p_name;
  insert into "app".limits as l (
    name, at_once, rate_count, rate_seconds, is_edited, created_at, used_at, edited_at, edited_by, reason
  ) values (p_name, p_at_once, p_rate_count, p_rate_seconds, true, v_now, v_now, v_now, p_actor, p_reason)
  on conflict (name) do update
  set at_once = p_at_once, rate_count = p_rate_count, rate_seconds = p_rate_seconds, is_edited = true,
      edited_at = v_now, edited_by = p_actor, reason = p_reason;
  if not found then
    perform "app".report_left_out('limits');
  end if;
  if p_rate_seconds is not null then
    perform "app".move_starts(p_name, p_rate_seconds);
  end if;
  perform "app".forget_scheduled_starts(p_name);
  perform "app".record_audit('set_limit', '', p_actor, p_reason, jsonb_build_object('limit', p_name,
    'from', jsonb_strip_nulls(to_jsonb(v_before)), 'to', jsonb_strip_nulls(jsonb_build_object(
      'at_once', p_at_once, 'rate_count', p_rate_count, 'rate_seconds', p_rate_seconds))));
end $$;

-- Leaves a limit's numbers to its declarations again, and returns whether an operator had chosen any.
-- The next stage that needs it writes those that it declares. The change is in the audit log. Locks: as set_limit.
create or replace function "app".forget_limit(p_name text, p_reason text, p_actor text) returns boolean
language plpgsql as $$
declare
  v_before record;
begin
  perform "app".lock_limits(array[p_name]);
  select l.at_once, l.rate_count, l.rate_seconds into v_before from "app".limits l
  where l.name = p_name and l.is_edited;
  if not found then
    return false;
  end if;
  update "app".limits l
  set at_once = null, rate_count = null, rate_seconds = null, is_edited = false, edited_at = null, edited_by = null,
      reason = null
  where l.name = p_name;
  if not found then
    perform "app".report_left_out('limits');
  end if;
  perform "app".forget_scheduled_starts(p_name);
  perform "app".record_audit('forget_limit', '', p_actor, p_reason, jsonb_build_object('limit', p_name,
    'from', jsonb_strip_nulls(to_jsonb(v_before))));
  return true;
end $$;

-- Counts starts that are later than they can be as of now, and frees kept places when their leases would have ended: the
-- database's clock was ahead when they were written. Returns of how many limits, and how many places.
-- Locks: those of up to p_limit limits, then as set_limit; rows of places.
create or replace function "app".bring_limits_back(p_limit integer) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_late timestamptz := v_now + interval '1 minute';
  v_names text[];
  v_count integer;
begin
  select array_agg(w.name) into v_names from (
    select l.name from "app".limits l
    where l.rate_count is not null and exists (
      select from "app".limit_starts e
      where e.limit_name = l.name and e.ends_at > v_late + l.rate_seconds / 20 * interval '1 second'
    )
    order by l.name limit p_limit
  ) w;
  if v_names is not null then
    perform "app".lock_limits(v_names);
    perform "app".move_starts(l.name, l.rate_seconds), "app".forget_scheduled_starts(l.name)
    from "app".limits l where l.name = any (v_names);
  end if;
  -- What is kept for a task lasts for 90 s at most (`take_limited_tasks`).
  update "app".limit_places p set ends_at = v_now + w.seconds * interval '1 second'
  from (
    select o.ctid as place, b.seconds
    from "app".limits l
    join "app".limit_places o on o.limit_name = l.name and o.ends_at > v_late
    join "app".stages s on s.job_id = o.job_id and s.run = o.run and s.stage = o.stage
    cross join lateral (
      select case when o.has_begun then (s.settings ->> 'lease_seconds')::double precision else 90 end as seconds
    ) b
    where o.ends_at > v_now + greatest(b.seconds + case when o.has_begun then 60 else 0 end, 60) * interval '1 second'
    limit p_limit for update of o skip locked
  ) w
  where p.ctid = w.place;
  get diagnostics v_count = row_count;
  return v_count + coalesce(cardinality(v_names), 0);
end $$;

-- Deletes places that were kept and whose time is over, those in line whose stage has ended, and up to p_limit limits that
-- nobody chose numbers for and no stage has needed for p_idle_seconds. Returns how many limits it deleted.
-- A limit whose rate still counts starts stays. Locks: those rows; a row that another transaction holds is skipped.
create or replace function "app".prune_limits(p_idle_seconds double precision, p_limit integer) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_count integer;
begin
  delete from "app".limit_places s
  where s.ctid = any (array(
    select o.ctid from "app".limits l
    join "app".limit_places o on o.limit_name = l.name and o.ends_at <= v_now
    limit p_limit for update of o skip locked
  ));
  delete from "app".limit_waiters w
  where w.ctid = any (array(
    select o.ctid from "app".limit_waiters o
    where not exists (
      select from "app".stages s join "app".jobs j on j.job_id = s.job_id
      where s.job_id = o.job_id and s.run = o.run and s.stage = o.stage and (j.status = 'processing' and j.run = s.run and s.status = 'processing')
    )
    limit p_limit for update skip locked
  ));
  with idle as (
    delete from "app".limits l
    where l.ctid = any (array(
      select o.ctid from "app".limits o
      where o.used_at < v_now - p_idle_seconds * interval '1 second' and not o.is_edited
        and not exists (select from "app".limit_places s where s.limit_name = o.name)
        and not exists (select from "app".limit_waiters w where w.limit_name = o.name)
        and not exists (select from "app".limit_starts e where e.limit_name = o.name
          and e.ends_at > v_now - o.rate_seconds * interval '1 second')
      order by o.used_at limit p_limit for update skip locked
    ))
    returning l.name
  ), gone as (
    delete from "app".limit_starts e using idle i where e.limit_name = i.name
  )
  select count(*) into v_count from idle;
  return v_count;
end $$;

comment on function "app"."limit_names"(p_settings jsonb) is 'The names of a stage''s limits, from its settings; null if it has none.';
comment on function "app"."ensure_limits"(p_settings jsonb, p_is_newest boolean) is 'Writes the rows of a stage''s limits that are not there, with the numbers that the stage declares.';
comment on function "app"."has_numbers"(p_at_once integer, p_rate_count integer) is 'Whether a limit has numbers; a declaration may only name it.';
comment on function "app"."look_at_limits"(p_names text[], p_job_id text, p_run integer, p_own_ids text[], p_now timestamptz) is 'How limits are used, one row each: places that are held, places that are kept for announced tasks, how many tasks began in the last period, and how many more may begin now.';
comment on function "app"."room_in_limits"(p_settings jsonb, p_job_id text, p_run integer, p_own_ids text[], p_now timestamptz) is 'How many tasks of a stage its limits let begin now, and which of them lets the fewest.';
comment on function "app"."end_of_start"(p_at timestamptz, p_rate_seconds double precision) is 'When the twentieth of a rate''s period ends that this moment is in.';
comment on function "app"."move_starts"(p_name text, p_rate_seconds double precision) is 'Counts the starts of a limit whose period has become shorter as of now, where they would count for longer than that: each is counted by the end of a twentieth of the period that it was in.';
comment on function "app"."forget_scheduled_starts"(p_name text) is 'Lets tasks that were scheduled for the time at which a limit''s old rate had room wait for their turn again, ahead of what is in line; their messages find that they run, have ended, or wait still.';
comment on function "app"."take_places"(p_settings jsonb, p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_now timestamptz) is 'Gives claimed tasks their places, and counts their starts.';
comment on function "app"."take_back_starts"(p_names text[], p_places tid[]) is 'Takes the starts of claimed tasks back that no handler began: their rates are for those that do.';
comment on function "app"."hold_back_tasks"(p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_places tid[], p_limit_name text) is 'Puts tasks whose message came while a limit had no place back to those that wait, without a message.';
comment on function "app"."wait_for_limit"(p_job_id text, p_run integer, p_stage integer, p_limit_name text) is 'Lets a stage wait for a limit: behind those that were served less, and not before those that wait already.';
comment on function "app"."free_places"() is 'Frees the places of a task whose attempt is over.';
comment on function "app"."keep_places"(p_places tid[]) is 'Keeps the places of running tasks that are about to be cut off until their leases would have ended: their handlers learn of it only at a heartbeat, and may still be at what the limit protects.';
comment on function "app"."drop_kept_places"(p_job_id text, p_run integer) is 'Frees the places that are kept for announced tasks of a job which begins no more: others need not wait until their time is over.';
comment on function "app"."take_limited_tasks"(p_job_id text, p_run integer, p_stage integer) is 'Takes the next tasks of a stage with limits, as many as these let begin, and keeps places for them.';
comment on function "app"."pass_over_waiter"(p_job_id text, p_run integer, p_stage integer) is 'Lets the next stage have its turn: this one''s job is paused, and it waits on behind the others; or it is over.';
comment on function "app"."serve_in_turn"(p_job_id text, p_run integer, p_stage integer, p_share double precision, p_is_done boolean) is 'Notes that a stage was served, and whether all its tasks were: then it waits no more.';
comment on function "app"."find_limit_waiters"(p_names text[], p_limit integer) is 'Finds stages that wait for limits which have room, or whose rate lets one be scheduled: in turn, up to p_limit of each limit and no more than it has room for.';
comment on function "app"."set_limit"(p_name text, p_at_once integer, p_rate_count integer, p_rate_seconds double precision, p_reason text, p_actor text) is 'Chooses the numbers of a limit, for all stages that name it, from now on; null: any number.';
comment on function "app"."forget_limit"(p_name text, p_reason text, p_actor text) is 'Leaves a limit''s numbers to its declarations again, and returns whether an operator had chosen any.';
comment on function "app"."bring_limits_back"(p_limit integer) is 'Counts starts that are later than they can be as of now, and frees kept places when their leases would have ended: the database''s clock was ahead when they were written.';
comment on function "app"."prune_limits"(p_idle_seconds double precision, p_limit integer) is 'Deletes places that were kept and whose time is over, those in line whose stage has ended, and up to p_limit limits that nobody chose numbers for and no stage has needed for p_idle_seconds.';

-- Parking: tasks whose message came while their job was paused, and tasks that a rerun wrote, wait here for a message.

-- Finds parked tasks of jobs that are not paused any more: of one job, or of all when p_job_id is null.
-- They are held until held_until, which unpark_tasks is called with: nobody else finds them before.
-- Locks: task rows; those that another transaction holds are skipped.
create or replace function "app".find_parked_tasks(p_job_id text, p_limit integer, p_hold_seconds double precision)
returns table (
  job_id text, run integer, stage integer, task_id text, queue text, attempt integer, job_type text,
  correlation_id text, tasks_per_message integer, held_until timestamptz
)
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
begin
  return query
  with found as (
    select t.job_id, t.run, t.task_id from "app".tasks t
    join "app".jobs j on j.job_id = t.job_id and j.run = t.run and j.stage = t.stage
    where t.parked_at <= v_now and t.status in ('pending', 'queued', 'pending_retry')
      and (p_job_id is null or t.job_id = p_job_id) and j.status = 'processing' and j.paused_at is null
    order by t.parked_at limit p_limit for update of t skip locked
  ), held as (
    update "app".tasks t set parked_at = v_now + p_hold_seconds * interval '1 second'
    from found f where t.job_id = f.job_id and t.run = f.run and t.task_id = f.task_id
    returning t.job_id, t.run, t.stage, t.task_id, t.queue, t.attempt, t.parked_at
  )
  select h.job_id, h.run, h.stage, h.task_id, h.queue, h.attempt, j.job_type, j.correlation_id,
    coalesce((s.settings ->> 'tasks_per_message')::integer, 1), h.parked_at
  from held h
  join "app".jobs j on j.job_id = h.job_id
  join "app".stages s on s.job_id = h.job_id and s.run = h.run and s.stage = h.stage
  order by h.job_id, h.run, h.stage, h.task_id;
end $$;

-- Notes that the messages for parked tasks are confirmed, and returns for how many.
-- Fence: the hold; a task whose message came to a job that was paused once more is parked anew and stays so.
-- Locks: task rows by id.
create or replace function "app".unpark_tasks(
  p_job_id text, p_run integer, p_task_ids text[], p_held_until timestamptz
) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_places tid[];
begin
  select coalesce(array_agg(o.place), array[]::tid[]) into v_places from "app".ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.parked_at = p_held_until
    for update
  ) o;
  update "app".tasks t
  set parked_at = null, announced_at = "app".clock(),
      status = case t.status when 'pending' then 'queued' else t.status end,
      due_at = case t.status when 'pending' then null else t.due_at end
  where t.ctid = any (v_places);
  return cardinality(v_places);
end $$;

comment on function "app"."find_parked_tasks"(p_job_id text, p_limit integer, p_hold_seconds double precision) is 'Finds parked tasks of jobs that are not paused any more: of one job, or of all when p_job_id is null.';
comment on function "app"."unpark_tasks"(p_job_id text, p_run integer, p_task_ids text[], p_held_until timestamptz) is 'Notes that the messages for parked tasks are confirmed, and returns for how many.';

-- Planning: a stage gets its tasks in one transaction. Many tasks: begin_stage_plan, COPY, seal_stage. Few:
-- plan_small_stage.

-- Opens the planning of a stage; the caller inserts the tasks and seals the stage in the same transaction.
-- Returns: ready; busy; missing; stale_run; closed (it is planned already, or not to be planned any more); paused;
-- expired (a deadline has passed: the caller lets enforce_deadlines end it).
-- Fence: the stage's lock is tried and not waited for, so that a duplicate message gets `busy` and ends.
-- Locks: the stage.
create or replace function "app".begin_stage_plan(p_job_id text, p_run integer, p_stage integer) returns text
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_job record;
begin
  if not "app".try_lock_stage(p_job_id, p_run, p_stage) then
    return 'busy';
  end if;
  select j.run, j.stage, j.status, j.paused_at, s.status as stage_status into v_job
  from "app".jobs j
  left join "app".stages s on s.job_id = j.job_id and s.run = p_run and s.stage = p_stage
  where j.job_id = p_job_id;
  if not found then
    return 'missing';
  elsif v_job.run <> p_run then
    return 'stale_run';
  elsif v_job.status <> 'queued' or v_job.stage <> p_stage or v_job.stage_status is distinct from 'queued' then
    return 'closed';
  elsif v_job.paused_at is not null then
    return 'paused';
  elsif "app".find_missed_deadline(p_job_id, p_run, p_stage, "app".clock()) is not null then
    return 'expired';
  end if;
  return 'ready';
end $$;

-- Seals a stage whose tasks are all inserted: from now on it can end, and one without tasks ends here.
-- The size chosen for its messages is kept in its settings, for announcing its tasks again. Returns the job's
-- status.
-- Locks: the stage's, taken by begin_stage_plan in this transaction; then the job row.
-- Raises CM002 when the job does not wait for this stage.
create or replace function "app".seal_stage(
  p_job_id text, p_run integer, p_stage integer, p_expected_count integer, p_tasks_per_message integer
) returns text
language plpgsql set plan_cache_mode = force_generic_plan as $$
begin
  update "app".jobs j set status = 'processing', updated_at = "app".clock()
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = 'queued';
  if not found then
    raise exception 'job % run % does not wait for stage %', p_job_id, p_run, p_stage using errcode = 'CM002';
  end if;
  update "app".stages s
  set status = 'processing', expected_count = p_expected_count, planned_at = "app".clock(),
      settings = case when p_tasks_per_message is null then s.settings
        else s.settings || jsonb_build_object('tasks_per_message', p_tasks_per_message) end
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.status = 'queued';
  if not found then
    perform "app".report_left_out('stages');
  end if;
  perform "app".record_event(p_job_id, p_run, p_stage, null, 'stage_planned',
    jsonb_build_object('expected_count', p_expected_count));
  perform "app".ensure_watch(p_job_id, p_run, p_stage);
  if p_expected_count = 0 then
    return "app".close_stage(p_job_id, p_run, p_stage);
  end if;
  return 'processing';
end $$;

-- Plans a stage of few tasks in one call.
-- With a lease the tasks are born claimed: the planner runs them itself and no message is needed. Then it commits
-- asynchronously, as a claim does: a crash that undoes it undoes nothing that was done, since the first result is
-- written with all that came before it, and the job's message is still unsettled. Returns `planned`, or an outcome of
-- begin_stage_plan. The same call once more, after its answer was lost with its connection, is `planned` too.
-- Fence and locks: those of begin_stage_plan and seal_stage.
create or replace function "app".plan_small_stage(
  p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_task_types text[], p_queues text[],
  p_names text[], p_parameters jsonb[], p_lease_id uuid, p_owner text,
  p_tasks_per_message integer
) returns text
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_outcome text := "app".begin_stage_plan(p_job_id, p_run, p_stage);
begin
  if v_outcome <> 'ready' then
    if v_outcome = 'closed' and "app".was_born_claimed(p_job_id, p_run, p_stage, p_task_ids[1], p_lease_id) then
      return 'planned';
    end if;
    return v_outcome;
  end if;
  if p_lease_id is not null then
    perform set_config('synchronous_commit', 'off', true);
  end if;
  perform "app".insert_few_tasks(p_job_id, p_run, p_stage, p_task_ids, p_task_types, p_queues, p_names, p_parameters,
    p_lease_id, p_owner, (s.settings ->> 'lease_seconds')::double precision)
  from "app".stages s where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  perform "app".seal_stage(p_job_id, p_run, p_stage, coalesce(cardinality(p_task_ids), 0),
    p_tasks_per_message);
  return 'planned';
end $$;

-- Whether a task is under the lease that it was planned with, so that its planner has it.
create or replace function "app".was_born_claimed(
  p_job_id text, p_run integer, p_stage integer, p_task_id text, p_lease_id uuid
) returns boolean
language sql stable as $$
  select exists (
    select from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_id and t.stage = p_stage
      and t.lease_id = p_lease_id
  )
$$;

-- Inserts the tasks of a stage, the last one watched; with a lease they are born claimed.
-- Raises CM006 when not all of them were inserted: a stage that counts tasks without rows would end without them.
create or replace function "app".insert_few_tasks(
  p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_task_types text[], p_queues text[],
  p_names text[], p_parameters jsonb[], p_lease_id uuid, p_owner text, p_lease_seconds double precision
) returns void
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_now timestamptz := "app".clock();
  v_inserted bigint;
begin
  insert into "app".tasks (
    job_id, run, task_id, stage, task_index, task_type, queue, name, parameters,
    status, attempt, lease_id, lease_owner, lease_expires_at, started_at, is_watched
  )
  select p_job_id, p_run, t.task_id, p_stage, t.place - 1, t.task_type, t.queue, t.name, t.parameters,
    case when p_lease_id is null then 'pending' else 'processing' end,
    case when p_lease_id is null then 0 else 1 end,
    p_lease_id, p_owner,
    case when p_lease_id is not null then v_now + p_lease_seconds * interval '1 second' end,
    case when p_lease_id is not null then v_now end,
    t.place = cardinality(p_task_ids)
  from unnest(p_task_ids, p_task_types, p_queues, p_names, p_parameters)
    with ordinality as t(task_id, task_type, queue, name, parameters, place);
  get diagnostics v_inserted = row_count;
  if v_inserted <> coalesce(cardinality(p_task_ids), 0) then
    raise exception 'expected % tasks to be inserted, found %: a trigger or a rule of the table tasks keeps rows out; '
      'drop it', cardinality(p_task_ids), v_inserted using errcode = 'CM006';
  end if;
  if p_lease_id is not null and "app".has_waited() then
    perform "app".begin_leases_now(p_task_ids, array_fill(p_lease_id, array[cardinality(p_task_ids)]), true);
  end if;
end $$;

comment on function "app"."begin_stage_plan"(p_job_id text, p_run integer, p_stage integer) is 'Opens the planning of a stage; the caller inserts the tasks and seals the stage in the same transaction.';
comment on function "app"."seal_stage"(p_job_id text, p_run integer, p_stage integer, p_expected_count integer, p_tasks_per_message integer) is 'Seals a stage whose tasks are all inserted: from now on it can end, and one without tasks ends here.';
comment on function "app"."plan_small_stage"(p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_task_types text[], p_queues text[], p_names text[], p_parameters jsonb[], p_lease_id uuid, p_owner text, p_tasks_per_message integer) is 'Plans a stage of few tasks in one call.';
comment on function "app"."was_born_claimed"(p_job_id text, p_run integer, p_stage integer, p_task_id text, p_lease_id uuid) is 'Whether a task is under the lease that it was planned with, so that its planner has it.';
comment on function "app"."insert_few_tasks"(p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_task_types text[], p_queues text[], p_names text[], p_parameters jsonb[], p_lease_id uuid, p_owner text, p_lease_seconds double precision) is 'Inserts the tasks of a stage, the last one watched; with a lease they are born claimed.';

-- Postponed work: this release does not know its type, so it is sent back with a growing delay, for one that does. No
-- attempt and no interruption is counted. What it waits for is noted in its row; a note counts only while the row is
-- where it was then (`at`), so nobody needs to remove it. Only the time in which somebody keeps giving it back counts
-- against p_patience_seconds: neither a pause nor an outage does. p_unknown describes what is not known: kind, name,
-- and `by` whom. p_delays: the delay after the first time, the second, and so on; the last one stays.

-- The note of work that is postponed, after one more time.
create or replace function "app".note_unknown_work(
  p_before jsonb, p_at jsonb, p_unknown jsonb, p_now timestamptz, p_patience_seconds double precision
) returns jsonb
language sql immutable as $$
  select p_unknown || jsonb_build_object(
    'at', p_at,
    'since', case when b.is_same then p_before -> 'since' else to_jsonb(p_now) end,
    'seen_at', p_now,
    'times', case when b.is_same then (p_before ->> 'times')::integer + 1 else 1 end,
    'waited_seconds', case when b.is_same then (p_before ->> 'waited_seconds')::double precision
      + least(greatest(extract(epoch from p_now - (p_before ->> 'seen_at')::timestamptz), 0), 120) else 0 end,
    'patience_seconds', p_patience_seconds)
  from (select coalesce(p_before -> 'at' = p_at, false) as is_same) b
$$;

-- Whether work with this note has waited long enough for a release that knows it.
create or replace function "app".is_patience_over(p_note jsonb) returns boolean
language sql immutable as $$
  select (p_note ->> 'waited_seconds')::double precision >= (p_note ->> 'patience_seconds')::double precision
$$;

-- The error of work that has waited long enough for a release that knows it.
create or replace function "app".unknown_work_error(p_note jsonb, p_attempt integer) returns jsonb
language sql stable as $$
  select "app".stored_error('UnknownWork',
    format('expected an app that knows the %s %s, and none came: postponed %s times since %s, last by %s; '
      'deploy the release that knows it, then rerun the job (COREMACHINE_UNKNOWN_WORK_PATIENCE_SECONDS is %s)',
      p_note ->> 'kind', p_note ->> 'name', p_note ->> 'times', p_note ->> 'since', p_note ->> 'by',
      p_note ->> 'patience_seconds'), false, p_attempt, (p_note ->> 'seen_at')::timestamptz)
$$;

-- Seconds until work with this note is retried.
create or replace function "app".unknown_work_delay(p_note jsonb, p_delays double precision[])
returns double precision
language sql immutable as $$
  select p_delays[least((p_note ->> 'times')::integer, cardinality(p_delays))]
$$;

-- Gives claimed tasks back, for a release that knows them, and returns one row per task.
-- Outcome: postponed, to be sent again after wait_seconds (so is one of these tasks that was postponed before and is
-- not due yet); failed, since its patience is over, with what that did to its stage and job. Those of a stage that has
-- ended are cancelled.
-- Fence: the lease. Locks: task rows by id, then the stage, then the job row.
-- Raises CM001 when the stage ended between the look at it and its lock: call again.
create or replace function "app".postpone_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_unknown jsonb,
  p_patience_seconds double precision, p_delays double precision[]
) returns table (
  task_id text, outcome text, queue text, wait_seconds double precision, is_last_task_in_stage boolean, job_status text
)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
  v_now timestamptz := "app".clock();
  v_ids text[] := "app".give_back_tasks(
    p_job_id, p_run, p_stage, p_lease_id, p_task_ids, false, true, null);
  v_failed text[];
  v_is_last boolean := false;
begin
  update "app".tasks t
  set waiting_for = "app".note_unknown_work(
    t.waiting_for, jsonb_build_object('attempt', t.attempt), p_unknown, v_now, p_patience_seconds)
  where t.ctid = any ("app".places_of_tasks(p_job_id, p_run, v_ids));
  update "app".tasks t
  set status = 'pending_retry',
      due_at = v_now + "app".unknown_work_delay(t.waiting_for, p_delays) * interval '1 second'
  where t.ctid = any ("app".places_of_tasks(p_job_id, p_run, v_ids))
    and not "app".is_patience_over(t.waiting_for);
  with failed as (
    update "app".tasks t
    set status = 'failed', is_watched = false, due_at = null, finished_at = v_now,
        error = "app".unknown_work_error(t.waiting_for, t.attempt)
    where t.ctid = any ("app".places_of_tasks(p_job_id, p_run, v_ids)) and t.status = 'pending'
    returning t.task_id
  )
  select array_agg(f.task_id) into v_failed from failed f;
  -- Once, not each time: it may be postponed a thousand times.
  perform "app".record_event(p_job_id, p_run, p_stage, min(t.task_id), 'tasks_wait_for_release',
    p_unknown || jsonb_build_object('count', count(*)))
  from "app".tasks t
  where t.ctid = any ("app".places_of_tasks(p_job_id, p_run, v_ids)) and (t.waiting_for ->> 'times')::integer = 1
  having count(*) > 0;
  if v_failed is not null then
    v_is_last := "app".check_stage(p_job_id, p_run, p_stage, true, v_failed);
  end if;
  return query
  select t.task_id, case t.status when 'failed' then 'failed' else 'postponed' end, t.queue,
    greatest(extract(epoch from t.due_at - v_now), 0)::double precision, v_is_last, j.status
  from "app".tasks t join "app".jobs j on j.job_id = t.job_id
  where t.ctid = any ("app".places_of_tasks(p_job_id, p_run, p_task_ids))
    and (t.status = 'pending_retry' or t.task_id in (select unnest(v_failed)))
  order by t.task_id;
end $$;

-- Postpones the step that a job waits for, for a release that knows it.
-- Outcome: postponed, to be announced again after delay_seconds; early (it was postponed before and is not due yet);
-- exhausted (nothing was changed: the caller fails the job with this error); not_waiting (it waits for no such step, or
-- is paused).
-- Fence: the job waits for that step of that run. Locks: the job row.
create or replace function "app".postpone_job_step(
  p_job_id text, p_run integer, p_stage integer, p_unknown jsonb, p_patience_seconds double precision,
  p_delays double precision[]
) returns table (outcome text, delay_seconds double precision, error jsonb)
language plpgsql as $$
#variable_conflict use_column
declare
  v_now timestamptz := "app".clock();
  v_job record;
  v_at jsonb;
  v_note jsonb;
begin
  select j.status, j.attempt, j.waiting_for into v_job from "app".jobs j
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status in ('queued', 'finalizing')
    and j.paused_at is null
  for update;
  if not found then
    outcome := 'not_waiting';
    return next;
    return;
  end if;
  v_at := jsonb_build_object('run', p_run, 'stage', p_stage, 'status', v_job.status, 'attempt', v_job.attempt);
  if v_job.waiting_for -> 'at' = v_at and (v_job.waiting_for ->> 'due_at')::timestamptz > v_now then
    outcome := 'early';
    delay_seconds := extract(epoch from (v_job.waiting_for ->> 'due_at')::timestamptz - v_now);
    return next;
    return;
  end if;
  v_note := "app".note_unknown_work(v_job.waiting_for, v_at, p_unknown, v_now, p_patience_seconds);
  if "app".is_patience_over(v_note) then
    outcome := 'exhausted';
    error := "app".unknown_work_error(v_note, v_job.attempt);
    return next;
    return;
  end if;
  outcome := 'postponed';
  delay_seconds := "app".unknown_work_delay(v_note, p_delays);
  v_note := v_note || jsonb_build_object('due_at', v_now + delay_seconds * interval '1 second');
  update "app".jobs j
  set waiting_for = v_note, due_at = (v_note ->> 'due_at')::timestamptz, announced_at = null, updated_at = v_now
  where j.job_id = p_job_id;
  if (v_note ->> 'times')::integer = 1 then
    perform "app".record_event(p_job_id, p_run, p_stage, null, 'job_waits_for_release', p_unknown);
  end if;
  return next;
end $$;

-- Finds what work waits for now, by kind and name, so that an app can see whether it knows it.
create or replace function "app".find_unknown_work(p_limit integer) returns table (kind text, name text)
language sql stable as $$
  select w.kind, w.name from (
    select j.waiting_for ->> 'kind' as kind, j.waiting_for ->> 'name' as name from "app".jobs j
    where j.status in ('queued', 'finalizing') and j.waiting_for is not null
    union
    select t.waiting_for ->> 'kind', t.waiting_for ->> 'name' from "app".tasks t
    where t.status = 'pending_retry' and t.waiting_for is not null
  ) w
  limit p_limit
$$;

-- Begins the patience of work anew, where half of it is spent, since an app that knows it is there.
-- Returns for how many rows.
-- Locks: task rows by id, then job rows; those that another transaction holds are skipped.
create or replace function "app".renew_patience(p_kind text, p_name text, p_limit integer) returns integer
language plpgsql as $$
declare
  v_tasks integer;
  v_jobs integer;
begin
  with found as (
    select t.job_id, t.run, t.task_id from "app".tasks t
    where t.status = 'pending_retry' and t.waiting_for ->> 'kind' = p_kind and t.waiting_for ->> 'name' = p_name
      and "app".is_patience_half_over(t.waiting_for)
    order by t.job_id, t.run, t.task_id limit p_limit for update skip locked
  )
  update "app".tasks t set waiting_for = t.waiting_for || jsonb_build_object('waited_seconds', 0)
  from found f where t.job_id = f.job_id and t.run = f.run and t.task_id = f.task_id;
  get diagnostics v_tasks = row_count;
  with found as (
    select j.job_id from "app".jobs j
    where j.status in ('queued', 'finalizing') and j.waiting_for ->> 'kind' = p_kind
      and j.waiting_for ->> 'name' = p_name and "app".is_patience_half_over(j.waiting_for)
    order by j.job_id limit p_limit for update skip locked
  )
  update "app".jobs j set waiting_for = j.waiting_for || jsonb_build_object('waited_seconds', 0)
  from found f where j.job_id = f.job_id;
  get diagnostics v_jobs = row_count;
  return v_tasks + v_jobs;
end $$;

-- Whether work with this note has spent half of its patience.
create or replace function "app".is_patience_half_over(p_note jsonb) returns boolean
language sql immutable as $$
  select (p_note ->> 'waited_seconds')::double precision * 2 >= (p_note ->> 'patience_seconds')::double precision
$$;

comment on function "app"."note_unknown_work"(p_before jsonb, p_at jsonb, p_unknown jsonb, p_now timestamptz, p_patience_seconds double precision) is 'The note of work that is postponed, after one more time.';
comment on function "app"."is_patience_over"(p_note jsonb) is 'Whether work with this note has waited long enough for a release that knows it.';
comment on function "app"."unknown_work_error"(p_note jsonb, p_attempt integer) is 'The error of work that has waited long enough for a release that knows it.';
comment on function "app"."unknown_work_delay"(p_note jsonb, p_delays double precision[]) is 'Seconds until work with this note is retried.';
comment on function "app"."postpone_tasks"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_unknown jsonb, p_patience_seconds double precision, p_delays double precision[]) is 'Gives claimed tasks back, for a release that knows them, and returns one row per task.';
comment on function "app"."postpone_job_step"(p_job_id text, p_run integer, p_stage integer, p_unknown jsonb, p_patience_seconds double precision, p_delays double precision[]) is 'Postpones the step that a job waits for, for a release that knows it.';
comment on function "app"."find_unknown_work"(p_limit integer) is 'Finds what work waits for now, by kind and name, so that an app can see whether it knows it.';
comment on function "app"."renew_patience"(p_kind text, p_name text, p_limit integer) is 'Begins the patience of work anew, where half of it is spent, since an app that knows it is there.';
comment on function "app"."is_patience_half_over"(p_note jsonb) is 'Whether work with this note has spent half of its patience.';

-- Progress: how far a job is.

-- How far a job is: one row per stage of its current run, with the number of its tasks in each state. Reads only.
create or replace function "app".check_job_completion(p_job_id text)
returns table (
  job_status text, run integer, stage integer, stage_status text, expected_count integer,
  completed integer, failed integer, cancelled integer, open integer
)
language sql stable as $$
  select j.status, s.run, s.stage, s.status, s.expected_count,
    count(*) filter (where t.status = 'completed')::integer,
    count(*) filter (where t.status = 'failed')::integer,
    count(*) filter (where t.status = 'cancelled')::integer,
    count(*) filter (where t.status in ('pending', 'queued', 'processing', 'pending_retry'))::integer
  from "app".jobs j
  join "app".stages s on s.job_id = j.job_id and s.run = j.run
  left join "app".tasks t on t.job_id = s.job_id and t.run = s.run and t.stage = s.stage
  where j.job_id = p_job_id
  group by j.status, s.run, s.stage, s.status, s.expected_count
  order by s.stage
$$;

comment on function "app"."check_job_completion"(p_job_id text) is 'How far a job is: one row per stage of its current run, with the number of its tasks in each state.';

-- Reruns: an ended job begins its next run, from what the last run left. The rows of that run stay beside the new ones.

-- Begins the job's next run.
-- Mode: failed (stages before the first that did not fully succeed are kept, and of that one the tasks that did; its
-- others get fresh attempts, and later stages are planned anew); from_stage (stages before p_from_stage are kept as
-- they are); all (nothing is kept). Kept rows are copied into the new run, so that planners, fan-in and finalize_job
-- find them. Where p_parameters or p_definition is null, that of the last run stays.
-- Outcome: rerun; refused (it has not ended); other_run (its run is not p_run any more); nothing_failed;
-- stage_not_reached; pruned (retention has deleted some of what would be kept); missing.
-- Fence: an ended job and its run.
-- Locks: the job row. Rows of the old run are only read, and an attempt that still settles there finds its job in
-- another run, so it cannot end as completed any more.
create or replace function "app".rerun_job(
  p_job_id text, p_run integer, p_mode text, p_from_stage integer, p_parameters jsonb, p_definition jsonb,
  p_reason text, p_actor text
) returns table (
  outcome text, status text, run integer, stage integer, is_paused boolean, kept_count integer, fresh_count integer
)
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
  v_job record;
  v_first integer;
  v_planned boolean := false;
  v_status text;
  v_definition jsonb;
begin
  select j.run, j.stage, j.status, j.definition, j.paused_at into v_job
  from "app".jobs j where j.job_id = p_job_id for update;
  if not found then
    outcome := 'missing';
    return next;
    return;
  end if;
  status := v_job.status;
  run := v_job.run;
  stage := v_job.stage;
  is_paused := v_job.paused_at is not null;
  v_definition := coalesce(p_definition, v_job.definition);
  v_first := "app".first_stage_to_rerun(p_job_id, v_job.run, p_mode, p_from_stage);
  outcome := case
    when v_job.run <> p_run then 'other_run'
    when v_job.status not in ('completed', 'completed_with_errors', 'failed', 'cancelled') then 'refused'
    when v_first is null then 'stage_not_reached'
    when p_mode = 'failed' and v_job.status = 'completed' then 'nothing_failed'
    when p_mode <> 'all' and not "app".has_all_tasks(p_job_id, v_job.run, v_first) then 'pruned'
    else 'rerun'
  end;
  if outcome <> 'rerun' then
    return next;
    return;
  end if;

  insert into "app".job_runs (
    job_id, run, status, parameters, definition, result, error, finished_at, followed_at
  )
  select j.job_id, j.run, j.status, j.parameters, j.definition, j.result, j.error, j.finished_at, v_now
  from "app".jobs j where j.job_id = p_job_id;
  if not found then
    perform "app".report_left_out('job_runs');
  end if;

  run := v_job.run + 1;
  if p_mode = 'failed' then
    select s.planned_at is not null into v_planned from "app".stages s
    where s.job_id = p_job_id and s.run = v_job.run and s.stage = v_first;
  end if;
  kept_count := "app".copy_kept_rows(p_job_id, v_job.run, v_first, coalesce(v_planned, false));
  if v_first > jsonb_array_length(v_definition -> 'stages') then
    v_status := 'finalizing';
    fresh_count := 0;
  elsif v_planned then
    v_status := 'processing';
    fresh_count := "app".copy_fresh_tasks(p_job_id, v_job.run, v_first);
  else
    v_status := 'queued';
    insert into "app".stages (job_id, run, stage, settings, created_at)
    values (p_job_id, rerun_job.run, v_first, v_definition -> 'stages' -> (v_first - 1), v_now);
    if not found then
      perform "app".report_left_out('stages');
    end if;
  end if;

  if not "app".has_all_tasks(p_job_id, rerun_job.run, v_first) then
    perform "app".report_left_out('tasks');
  end if;

  update "app".jobs j
  set status = v_status, run = rerun_job.run,
      stage = least(v_first, jsonb_array_length(v_definition -> 'stages')),
      total_stages = jsonb_array_length(v_definition -> 'stages'), definition = v_definition,
      parameters = coalesce(p_parameters, j.parameters), result = null, error = null, attempt = 0, due_at = null,
      announced_at = null, paused_at = null, cancel_deadline_at = null, finished_at = null,
      run_started_at = v_now, updated_at = v_now, start_at = null
  where j.job_id = p_job_id
  returning j.status, j.stage into status, stage;
  if not found then
    perform "app".report_left_out('jobs');
  end if;
  perform "app".record_event(p_job_id, rerun_job.run, v_first, null, 'job_rerun',
    jsonb_build_object('mode', p_mode, 'kept_count', kept_count, 'fresh_count', fresh_count, 'reason', p_reason,
      'actor', p_actor, 'from_run', v_job.run, 'parameters', p_parameters));
  perform "app".record_audit('rerun', p_job_id, p_actor, p_reason,
    jsonb_build_object('from', v_job.status, 'run', v_job.run, 'mode', p_mode, 'to_run', rerun_job.run));
  if v_planned then
    -- Out of the usual order, but nobody can hold the lock of a run that begins here.
    perform "app".lock_stage(p_job_id, rerun_job.run, v_first);
    if not "app".ensure_watch(p_job_id, rerun_job.run, v_first) then
      status := "app".close_stage(p_job_id, rerun_job.run, v_first);
    end if;
  end if;
  return next;
end $$;

-- The stage where a rerun begins; one past the last when only the job's own summary is missing.
-- Null when a stage before p_from_stage has not ended well enough to be kept, or there is no such stage.
create or replace function "app".first_stage_to_rerun(
  p_job_id text, p_run integer, p_mode text, p_from_stage integer
) returns integer
language sql stable as $$
  select case p_mode
    when 'all' then 1
    when 'failed' then coalesce(min(s.stage) filter (where s.status <> 'completed'), max(s.stage) + 1)
    else case when p_from_stage between 1 and max(j.total_stages)
      and p_from_stage - 1 = count(*) filter (
        where s.stage < p_from_stage and s.status in ('completed', 'completed_with_errors'))
      then p_from_stage end
  end
  from "app".jobs j
  join "app".stages s on s.job_id = j.job_id and s.run = p_run
  where j.job_id = p_job_id
$$;

-- Whether the stages up to this one have all the tasks that they were planned with.
create or replace function "app".has_all_tasks(p_job_id text, p_run integer, p_stage integer) returns boolean
language sql stable as $$
  select (
    select coalesce(sum(s.expected_count), 0) from "app".stages s
    where s.job_id = p_job_id and s.run = p_run and s.stage <= p_stage
  ) = (
    select count(*) from "app".tasks t where t.job_id = p_job_id and t.run = p_run and t.stage <= p_stage
  )
$$;

-- Copies stages before p_first with their tasks into the next run, and returns the number of tasks.
-- With p_partly also the completed tasks of p_first itself, whose row is then open again.
create or replace function "app".copy_kept_rows(p_job_id text, p_run integer, p_first integer, p_partly boolean)
returns integer
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
  v_count integer;
begin
  insert into "app".stages (
    job_id, run, stage, status, settings, expected_count, failed_count, created_at, planned_at, finished_at, from_run
  )
  select s.job_id, s.run + 1, s.stage, s.status, s.settings, s.expected_count, s.failed_count, s.created_at,
    s.planned_at, s.finished_at, coalesce(s.from_run, s.run)
  from "app".stages s
  where s.job_id = p_job_id and s.run = p_run and s.stage < p_first;
  if p_first > 1 and not found then
    perform "app".report_left_out('stages');
  end if;
  if p_partly then
    insert into "app".stages (
      job_id, run, stage, status, settings, expected_count, created_at, planned_at, from_run
    )
    select s.job_id, s.run + 1, s.stage, 'processing', s.settings, s.expected_count, v_now, v_now,
      coalesce(s.from_run, s.run)
    from "app".stages s
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_first;
    if not found then
      perform "app".report_left_out('stages');
    end if;
  end if;
  insert into "app".tasks (
    job_id, run, task_id, stage, task_index, task_type, queue, name, parameters, status, attempt, interruptions,
    lease_owner, progress, result, error, created_at, announced_at, started_at, finished_at, from_run
  )
  select t.job_id, t.run + 1, t.task_id, t.stage, t.task_index, t.task_type, t.queue, t.name, t.parameters, t.status,
    t.attempt, t.interruptions, t.lease_owner, t.progress, t.result, t.error, t.created_at, t.announced_at,
    t.started_at, t.finished_at, coalesce(t.from_run, t.run)
  from "app".tasks t
  where t.job_id = p_job_id and t.run = p_run
    and ((t.stage < p_first and t.status in ('completed', 'failed'))
      or (p_partly and t.stage = p_first and t.status = 'completed'));
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- Copies the tasks of a stage that did not complete into the next run, with all their attempts left.
-- They are parked, since they need a message now; more than a first window, and those of a stage with limits, are
-- announced in windows instead. A fan-in
-- task's source moves to the new run with it. Returns their number.
create or replace function "app".copy_fresh_tasks(p_job_id text, p_run integer, p_stage integer) returns integer
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
  v_count integer;
  v_window integer;
  v_is_windowed boolean;
begin
  select count(*) into v_count from "app".tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status <> 'completed';
  select "app".first_window(s.settings),
    v_count > "app".first_window(s.settings) or (v_count > 0 and s.settings ->> 'limits' is not null)
  into v_window, v_is_windowed
  from "app".stages s
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  insert into "app".tasks (
    job_id, run, task_id, stage, task_index, task_type, queue, name, parameters, created_at, parked_at, is_windowed,
    is_limited
  )
  select t.job_id, t.run + 1, t.task_id, t.stage, t.task_index, t.task_type, t.queue, t.name,
    case when t.parameters ? 'fan_in_source'
      then jsonb_set(t.parameters, array['fan_in_source', 'run'], to_jsonb(t.run + 1)) else t.parameters end,
    v_now, case when not v_is_windowed then v_now end, v_is_windowed, t.is_limited
  from "app".tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status <> 'completed';
  if v_is_windowed then
    perform "app".open_window(p_job_id, p_run + 1, p_stage, v_window);
  end if;
  return v_count;
end $$;

comment on function "app"."rerun_job"(p_job_id text, p_run integer, p_mode text, p_from_stage integer, p_parameters jsonb, p_definition jsonb, p_reason text, p_actor text) is 'Begins the job''s next run.';
comment on function "app"."first_stage_to_rerun"(p_job_id text, p_run integer, p_mode text, p_from_stage integer) is 'The stage where a rerun begins; one past the last when only the job''s own summary is missing.';
comment on function "app"."has_all_tasks"(p_job_id text, p_run integer, p_stage integer) is 'Whether the stages up to this one have all the tasks that they were planned with.';
comment on function "app"."copy_kept_rows"(p_job_id text, p_run integer, p_first integer, p_partly boolean) is 'Copies stages before p_first with their tasks into the next run, and returns the number of tasks.';
comment on function "app"."copy_fresh_tasks"(p_job_id text, p_run integer, p_stage integer) is 'Copies the tasks of a stage that did not complete into the next run, with all their attempts left.';

-- Retention: only jobs that have ended are ever pruned, and in pieces. Each call is one short transaction that no
-- running work waits for.

-- A job under a legal hold is kept, however old it is.

-- Finds jobs that ended longer ago than p_older_than_seconds, the oldest first.
create or replace function "app".find_prunable_jobs(p_older_than_seconds double precision, p_limit integer)
returns table (job_id text, job_type text, status text, finished_at timestamptz)
language sql stable as $$
  select j.job_id, j.job_type, j.status, j.finished_at from "app".jobs j
  where j.status in ('completed', 'completed_with_errors', 'failed', 'cancelled') and j.hold is null
    and j.finished_at < "app".clock() - p_older_than_seconds * interval '1 second'
  order by j.finished_at limit p_limit
$$;

-- Raises CM006 where jobs were deleted and rows of theirs are left: a trigger keeps them from going with their job.
-- They would be of no job, and stand in the way of another submission of it.
create or replace function "app".refuse_left_behind(p_job_ids text[]) returns void
language plpgsql set enable_seqscan = off as $$
declare
  v_id text;
begin
  foreach v_id in array p_job_ids loop
    if exists (select from "app".tasks t where t.job_id = v_id) then
      perform "app".report_left_out('tasks');
    elsif exists (select from "app".stages s where s.job_id = v_id) then
      perform "app".report_left_out('stages');
    elsif exists (select from "app".job_events e where e.job_id = v_id) then
      perform "app".report_left_out('job_events');
    elsif exists (select from "app".job_runs r where r.job_id = v_id) then
      perform "app".report_left_out('job_runs');
    elsif exists (select from "app".idempotency_keys k where k.job_id = v_id) then
      perform "app".report_left_out('idempotency_keys');
    end if;
  end loop;
end $$;

-- Deletes up to p_limit tasks of an ended job, and with the last of them the job, its stages and its events.
-- Returns how many tasks it deleted, and whether the job.
-- Fence: the job has ended and is under no hold, read under its row's lock.
-- Locks: the job row; one that another transaction holds is skipped.
create or replace function "app".prune_job(p_job_id text, p_limit integer)
returns table (pruned_tasks integer, is_job_pruned boolean)
language plpgsql set enable_seqscan = off as $$
begin
  pruned_tasks := 0;
  is_job_pruned := false;
  perform 1 from "app".jobs j
  where j.job_id = p_job_id and j.status in ('completed', 'completed_with_errors', 'failed', 'cancelled') and j.hold is null
  for update skip locked;
  if found then
    delete from "app".tasks t
    where t.ctid = any (array(select d.ctid from "app".tasks d where d.job_id = p_job_id limit p_limit));
    get diagnostics pruned_tasks = row_count;
    if pruned_tasks < p_limit then
      delete from "app".jobs j where j.job_id = p_job_id;
      if not found then
        perform "app".report_left_out('jobs');
      end if;
      perform "app".refuse_left_behind(array[p_job_id]);
      is_job_pruned := true;
    elsif not exists (select 1 from "app".job_events e where e.job_id = p_job_id and e.event = 'pruning_begun') then
      perform "app".record_event(p_job_id, j.run, null, null, 'pruning_begun', null)
      from "app".jobs j where j.job_id = p_job_id;
    end if;
  end if;
  return next;
end $$;

-- Deletes the first of these ended jobs that have at most p_limit tasks altogether, whole, and returns their ids.
-- Their stages have the numbers of their tasks, so that none is counted. A job that is too large goes by prune_job.
-- Fence: the jobs have ended and are under no hold, read under the locks of their rows.
-- Locks: job rows; those that another transaction holds are skipped.
create or replace function "app".prune_small_jobs(p_job_ids text[], p_limit integer)
returns table (pruned_tasks integer, pruned_job_ids text[])
language plpgsql set enable_seqscan = off as $$
declare
  v_places tid[];
  v_count integer;
begin
  select coalesce(array_agg(w.id), array[]::text[]), array_agg(w.place) into pruned_job_ids, v_places
  from (
    select named.id, h.place, sum(h.task_count) over (order by named.nth) as total
    from unnest(p_job_ids) with ordinality as named(id, nth)
    cross join lateral (
      select j.ctid as place, coalesce((
        select sum(s.expected_count) from "app".stages s where s.job_id = j.job_id
      ), 0) as task_count
      from "app".jobs j
      where j.job_id = named.id and j.status in ('completed', 'completed_with_errors', 'failed', 'cancelled') and j.hold is null
      for update skip locked
    ) h
    -- A large job does not count, so that those behind it go now.
    where h.task_count <= p_limit
  ) w
  where w.total <= p_limit;
  delete from "app".tasks t
  where t.ctid = any (array(
    select d.place from unnest(pruned_job_ids) as named(id)
    cross join lateral (select x.ctid as place from "app".tasks x where x.job_id = named.id offset 0) d
  ));
  get diagnostics pruned_tasks = row_count;
  delete from "app".jobs j where j.ctid = any (v_places);
  get diagnostics v_count = row_count;
  if v_count < cardinality(pruned_job_ids) then
    perform "app".report_left_out('jobs');
  end if;
  perform "app".refuse_left_behind(pruned_job_ids);
  return next;
end $$;

-- Deletes up to p_limit dead letters without a job that came longer ago than p_older_than_seconds.
-- Those of a job go after their job. Returns how many it deleted.
create or replace function "app".prune_dead_letters(p_older_than_seconds double precision, p_limit integer)
returns integer
language plpgsql as $$
declare
  v_count integer;
begin
  delete from "app".dead_letters d
  where d.ctid = any (array(
    select o.ctid from "app".dead_letters o
    where o.received_at < "app".clock() - p_older_than_seconds * interval '1 second'
      and not exists (select 1 from "app".jobs j where j.job_id = o.job_id)
    order by o.received_at limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- Deletes up to p_limit tasks of an ended job because somebody asked for it, and with the last of them the job.
-- Outcome: deleted; deleting (tasks are left: call again); refused (it has not ended); held (it is under a legal hold);
-- busy (another transaction has its row: call again); missing. The first call and the last one are in the audit log.
-- Fence and locks: those of prune_job.
create or replace function "app".delete_job(p_job_id text, p_reason text, p_actor text, p_limit integer)
returns table (outcome text, status text, pruned_tasks integer)
language plpgsql as $$
declare
  v_job record;
  v_pruned record;
begin
  pruned_tasks := 0;
  select j.status, j.run, j.job_type, j.status in ('completed', 'completed_with_errors', 'failed', 'cancelled') as has_ended, j.hold, exists (
    select from "app".job_events e where e.job_id = p_job_id and e.event = 'pruning_begun') as has_begun
  into v_job
  from "app".jobs j where j.job_id = p_job_id;
  status := v_job.status;
  outcome := case when not found then 'missing' when not v_job.has_ended then 'refused'
    when v_job.hold is not null then 'held' end;
  if outcome is null then
    select p.pruned_tasks, p.is_job_pruned into v_pruned from "app".prune_job(p_job_id, p_limit) p;
    pruned_tasks := v_pruned.pruned_tasks;
    outcome := case when v_pruned.is_job_pruned then 'deleted' when v_pruned.pruned_tasks > 0 then 'deleting'
      else 'busy' end;
    if outcome = 'deleted' or (outcome = 'deleting' and not v_job.has_begun) then
      perform "app".record_audit('delete', p_job_id, p_actor, p_reason, jsonb_build_object(
        'from', v_job.status, 'run', v_job.run, 'job_type', v_job.job_type, 'is_done', outcome = 'deleted'));
    end if;
  end if;
  return next;
end $$;

-- Puts a job under a legal hold, or takes it off (p_is_held false); again changes nothing.
-- Outcome: held; released; unchanged; missing. Locks: the job row.
create or replace function "app".hold_job(p_job_id text, p_is_held boolean, p_reason text, p_actor text)
returns table (outcome text, status text, hold jsonb)
language plpgsql as $$
declare
  v_job record;
begin
  select j.status, j.run, j.hold into v_job from "app".jobs j where j.job_id = p_job_id for update;
  status := v_job.status;
  outcome := case when not found then 'missing' when (v_job.hold is not null) = p_is_held then 'unchanged'
    when p_is_held then 'held' else 'released' end;
  hold := v_job.hold;
  if outcome in ('held', 'released') then
    hold := case when p_is_held then jsonb_strip_nulls(jsonb_build_object(
      'reason', p_reason, 'actor', p_actor, 'at', "app".clock())) end;
    update "app".jobs j set hold = hold_job.hold where j.job_id = p_job_id;
    if not found then
      perform "app".report_left_out('jobs');
    end if;
    perform "app".record_event(p_job_id, v_job.run, null, null,
      case when p_is_held then 'job_held' else 'job_released' end,
      jsonb_build_object('reason', p_reason, 'actor', p_actor));
    perform "app".record_audit(case when p_is_held then 'hold' else 'release' end, p_job_id, p_actor, p_reason,
      jsonb_build_object('status', v_job.status, 'run', v_job.run));
  end if;
  return next;
end $$;

comment on function "app"."find_prunable_jobs"(p_older_than_seconds double precision, p_limit integer) is 'Finds jobs that ended longer ago than p_older_than_seconds, the oldest first.';
comment on function "app"."refuse_left_behind"(p_job_ids text[]) is 'Raises CM006 where jobs were deleted and rows of theirs are left: a trigger keeps them from going with their job.';
comment on function "app"."prune_job"(p_job_id text, p_limit integer) is 'Deletes up to p_limit tasks of an ended job, and with the last of them the job, its stages and its events.';
comment on function "app"."prune_small_jobs"(p_job_ids text[], p_limit integer) is 'Deletes the first of these ended jobs that have at most p_limit tasks altogether, whole, and returns their ids.';
comment on function "app"."prune_dead_letters"(p_older_than_seconds double precision, p_limit integer) is 'Deletes up to p_limit dead letters without a job that came longer ago than p_older_than_seconds.';
comment on function "app"."delete_job"(p_job_id text, p_reason text, p_actor text, p_limit integer) is 'Deletes up to p_limit tasks of an ended job because somebody asked for it, and with the last of them the job.';
comment on function "app"."hold_job"(p_job_id text, p_is_held boolean, p_reason text, p_actor text) is 'Puts a job under a legal hold, or takes it off (p_is_held false); again changes nothing.';

-- Retries: a failed attempt, of a task or of a job's step, is retried after a delay.

-- The longest time to wait after an attempt failed, in seconds: exponential, capped.
-- p_policy: a stage's `retry`. p_attempt counts from 1, without interruptions; its exponent is bounded, since 2 ^ 2000
-- is no double precision. core/models/retry.py is the same rule, for attempts that end in their process; a test
-- compares them.
create or replace function "app".longest_retry_delay(p_policy jsonb, p_attempt integer) returns double precision
language sql immutable as $$
  select least((p_policy ->> 'max_delay_seconds')::double precision,
    (p_policy ->> 'base_delay_seconds')::double precision * power(2, least(p_attempt - 1, 64)))
$$;

-- Seconds to wait after an attempt failed, with full jitter: a fan-out that failed in one second comes back spread out.
create or replace function "app".retry_delay(p_policy jsonb, p_attempt integer) returns double precision
language sql volatile as $$
  select random() * "app".longest_retry_delay(p_policy, p_attempt)
$$;

-- Schedules another attempt of a task whose attempt failed: pending_retry, due after p_delay_seconds, lease given up.
-- Outcome: scheduled; exhausted (no attempt is left: nothing changed, fail it); closed (its stage or job ended: nothing
-- changed, settle it); stale (not held under this lease). Interruptions do not spend attempts.
-- is_in_line: it needs no message, if its stage is looked at after it is due: take_next_tasks takes it then. Not where
-- max_parallel or limits count what is announced, nor of a task that its stage's window has not come to.
-- Fence: the lease. Locks: the task row, then the stage, shared.
create or replace function "app".increment_task_retry_count(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_id text, p_error jsonb,
  p_delay_seconds double precision, p_knows_lines boolean
) returns table (outcome text, attempt integer, due_at timestamptz, is_in_line boolean)
language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
  v_now timestamptz := "app".clock();
  v_task record;
  v_error jsonb;
begin
  select t.attempt - t.interruptions as spent, (s.settings -> 'retry' ->> 'max_attempts')::integer as allowed,
         (j.status = 'processing' and j.run = s.run and s.status = 'processing') as is_open,
         coalesce(t.task_id <= s.window_after and t.waiting_for is null, false)
           and s.settings ->> 'limits' is null and s.settings ->> 'max_parallel' is null as is_in_line
  into v_task
  from "app".tasks t
  join "app".stages s on s.job_id = t.job_id and s.run = t.run and s.stage = t.stage
  join "app".jobs j on j.job_id = t.job_id
  where t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_id and t.stage = p_stage
    and t.status is not distinct from 'processing' and t.lease_id = p_lease_id
  for update of t;
  is_in_line := false;
  if not found then
    outcome := 'stale';
  elsif not v_task.is_open then
    outcome := 'closed';
  elsif v_task.spent >= v_task.allowed then
    outcome := 'exhausted';
  elsif not "app".keep_stage_open(p_job_id, p_run, p_stage, false) then
    outcome := 'closed';
  else
    update "app".tasks t
    set status = 'pending_retry', due_at = v_now + p_delay_seconds * interval '1 second',
        error = "app".error_of_attempt(p_error, t.attempt), announced_at = null, lease_id = null, lease_expires_at = null
    where t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_id
    returning t.attempt, t.due_at, t.error into attempt, due_at, v_error;
    if not found then
      perform "app".report_left_out('tasks');
    end if;
    outcome := 'scheduled';
    is_in_line := p_knows_lines and v_task.is_in_line;
    perform "app".record_event(p_job_id, p_run, p_stage, p_task_id, 'retry_scheduled',
      v_error || jsonb_build_object('delay_seconds', p_delay_seconds));
  end if;
  return next;
end $$;

-- The same, as a process of the release before calls it, which sends a message for each.
-- Its statements are prepared, so the result may not change while it runs.
create or replace function "app".increment_task_retry_count(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_id text, p_error jsonb,
  p_delay_seconds double precision
) returns table (outcome text, attempt integer, due_at timestamptz)
language sql as $$
  select r.outcome, r.attempt, r.due_at from "app".increment_task_retry_count(
    p_job_id, p_run, p_stage, p_lease_id, p_task_id, p_error, p_delay_seconds, false) r;
$$;

-- Schedules another attempt to plan the job's stage, or to finalize it, after p_delay_seconds.
-- Returns the number of failed attempts so far; null: somebody else has taken that step meanwhile, or has counted this
-- attempt. p_attempt: the failed attempts before this one.
-- Fence: the job waits for that step of that run, as it did when the attempt began. Locks: the job row.
create or replace function "app".retry_job_step(
  p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_error jsonb,
  p_delay_seconds double precision
) returns integer
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
  v_attempt integer;
begin
  update "app".jobs j
  set attempt = j.attempt + 1, due_at = v_now + p_delay_seconds * interval '1 second', announced_at = null,
      updated_at = v_now
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = p_status and j.attempt = p_attempt
    and j.status in ('queued', 'finalizing')
  returning j.attempt into v_attempt;
  if found then
    perform "app".record_event(p_job_id, p_run, p_stage, null, 'job_step_retry_scheduled',
      p_error || jsonb_build_object('attempt', v_attempt, 'delay_seconds', p_delay_seconds));
  end if;
  return v_attempt;
end $$;

-- The same, as a process of the release before calls it, which does not say which attempt failed.
create or replace function "app".retry_job_step(
  p_job_id text, p_run integer, p_stage integer, p_error jsonb, p_delay_seconds double precision
) returns integer
language sql as $$
  select "app".retry_job_step(
    j.job_id, j.run, j.stage, j.status, j.attempt, p_error, p_delay_seconds)
  from "app".jobs j where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage
$$;

comment on function "app"."longest_retry_delay"(p_policy jsonb, p_attempt integer) is 'The longest time to wait after an attempt failed, in seconds: exponential, capped.';
comment on function "app"."retry_delay"(p_policy jsonb, p_attempt integer) is 'Seconds to wait after an attempt failed, with full jitter: a fan-out that failed in one second comes back spread out.';
comment on function "app"."increment_task_retry_count"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_id text, p_error jsonb, p_delay_seconds double precision, p_knows_lines boolean) is 'Schedules another attempt of a task whose attempt failed: pending_retry, due after p_delay_seconds, lease given up.';
comment on function "app"."increment_task_retry_count"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_id text, p_error jsonb, p_delay_seconds double precision) is 'The same, as a process of the release before calls it, which sends a message for each.';
comment on function "app"."retry_job_step"(p_job_id text, p_run integer, p_stage integer, p_status text, p_attempt integer, p_error jsonb, p_delay_seconds double precision) is 'Schedules another attempt to plan the job''s stage, or to finalize it, after p_delay_seconds.';
comment on function "app"."retry_job_step"(p_job_id text, p_run integer, p_stage integer, p_error jsonb, p_delay_seconds double precision) is 'The same, as a process of the release before calls it, which does not say which attempt failed.';

-- Schedules: what is decided about each tick is written once, under the schedule's row; its job is submitted afterwards.
-- A tick is decided about by one transaction: the row's next_tick_at moves past it together with the row that is written
-- for it, and (schedule, tick_at) is the key of those rows. Its job is submitted under the idempotency key in that row.

-- Writes a schedule, or another one in the place of that which the caller saw.
-- Outcome: created; replaced; changed (it is not as the caller saw it: nothing is written).
-- p_revision is 0 where the caller saw none. A pause stays; p_ticks are those that it skipped, where the times change.
-- Fence: the primary key, or the revision and next_tick_at that the caller saw. Locks: the schedule row.
create or replace function "app".put_schedule(
  p_name text, p_job_type text, p_parameters jsonb, p_cron text, p_time_zone text, p_catch_up text, p_overlap text,
  p_starts_at timestamptz, p_ends_at timestamptz, p_description text, p_next_tick_at timestamptz,
  p_revision integer, p_seen_tick_at timestamptz, p_ticks jsonb, p_actor text
) returns text
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
begin
  if p_revision = 0 then
    insert into "app".schedules (
      name, job_type, parameters, cron, time_zone, catch_up, overlap, starts_at, ends_at, description, next_tick_at,
      last_change, created_at, updated_at
    ) values (
      p_name, p_job_type, p_parameters, p_cron, p_time_zone, p_catch_up, p_overlap, p_starts_at, p_ends_at,
      p_description, p_next_tick_at, "app".schedule_change('created', p_actor, null), v_now, v_now
    ) on conflict do nothing;
    if not found then
      if not exists (select from "app".schedules s where s.name = p_name) then
        perform "app".report_left_out('schedules');
      end if;
      return 'changed';
    end if;
    perform "app".record_audit('schedule_put', '', p_actor, null, jsonb_build_object('schedule', p_name));
    return 'created';
  end if;
  if not "app".lock_schedule(p_name, p_revision, p_seen_tick_at) then
    return 'changed';
  end if;
  update "app".schedules s set job_type = p_job_type, parameters = p_parameters, cron = p_cron,
    time_zone = p_time_zone, catch_up = p_catch_up, overlap = p_overlap, starts_at = p_starts_at, ends_at = p_ends_at,
    description = p_description, next_tick_at = p_next_tick_at, revision = s.revision + 1,
    last_change = "app".schedule_change('replaced', p_actor, null), updated_at = v_now
  where s.name = p_name;
  if not found then
    perform "app".report_left_out('schedules');
  end if;
  perform "app".write_ticks(p_name, p_ticks);
  perform "app".record_audit('schedule_put', '', p_actor, null, jsonb_build_object('schedule', p_name));
  return 'replaced';
end $$;

-- The latest change of a schedule as its row holds it.
create or replace function "app".schedule_change(p_action text, p_actor text, p_reason text) returns jsonb
language sql stable as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'action', p_action, 'actor', p_actor, 'reason', p_reason, 'at', "app".clock()))
$$;

-- Decides about no more ticks of a schedule; again changes nothing. No row: there is no such schedule.
-- Locks: the schedule row.
create or replace function "app".pause_schedule(p_name text, p_reason text, p_actor text)
returns table (has_changed boolean)
language plpgsql as $$
begin
  select s.paused_at is null into has_changed from "app".schedules s where s.name = p_name for update;
  if not found then
    return;
  end if;
  if has_changed then
    update "app".schedules s set paused_at = "app".clock(), revision = s.revision + 1,
      last_change = "app".schedule_change('paused', p_actor, p_reason), updated_at = "app".clock()
    where s.name = p_name;
    if not found then
      perform "app".report_left_out('schedules');
    end if;
    perform "app".record_audit('schedule_pause', '', p_actor, p_reason, jsonb_build_object('schedule', p_name));
  end if;
  return next;
end $$;

-- Locks a schedule for a change; false where it is not as the caller saw it.
create or replace function "app".lock_schedule(p_name text, p_revision integer, p_seen_tick_at timestamptz)
returns boolean
language plpgsql as $$
begin
  perform from "app".schedules s
  where s.name = p_name and s.revision = p_revision and s.next_tick_at is not distinct from p_seen_tick_at
  for update;
  return found;
end $$;

-- Ends a schedule's pause and writes down that the ticks in it are skipped.
-- Returns false where it is not as the caller saw it: nothing is written.
-- Fence: the revision and next_tick_at that the caller saw; the pause. Locks: the schedule row.
create or replace function "app".resume_schedule(
  p_name text, p_revision integer, p_seen_tick_at timestamptz, p_ticks jsonb, p_next_tick_at timestamptz,
  p_reason text, p_actor text
) returns boolean
language plpgsql as $$
begin
  if not "app".lock_schedule(p_name, p_revision, p_seen_tick_at)
    or exists (select from "app".schedules s where s.name = p_name and s.paused_at is null) then
    return false;
  end if;
  update "app".schedules s set paused_at = null, next_tick_at = p_next_tick_at, revision = s.revision + 1,
    last_change = "app".schedule_change('resumed', p_actor, p_reason), updated_at = "app".clock()
  where s.name = p_name;
  if not found then
    perform "app".report_left_out('schedules');
  end if;
  perform "app".write_ticks(p_name, p_ticks);
  perform "app".record_audit('schedule_resume', '', p_actor, p_reason, jsonb_build_object('schedule', p_name));
  return true;
end $$;

-- Finds schedules with a tick that is due and that nothing is decided about, the longest overdue first.
create or replace function "app".find_due_schedules(p_limit integer) returns table (name text)
language sql stable as $$
  select s.name from "app".schedules s
  where s.next_tick_at <= "app".clock() and s.paused_at is null
  order by s.next_tick_at limit p_limit
$$;

-- Writes down what becomes of a schedule's due ticks, and moves its next_tick_at past them.
-- Returns false where the schedule is not as the caller saw it: nothing is written, since another process has decided.
-- Fence: the revision and next_tick_at that the caller saw, and no pause. Locks: the schedule row.
create or replace function "app".plan_ticks(
  p_name text, p_revision integer, p_seen_tick_at timestamptz, p_ticks jsonb, p_next_tick_at timestamptz
) returns boolean
language plpgsql as $$
begin
  if not "app".lock_schedule(p_name, p_revision, p_seen_tick_at)
    or exists (select from "app".schedules s where s.name = p_name and s.paused_at is not null) then
    return false;
  end if;
  update "app".schedules s set next_tick_at = p_next_tick_at where s.name = p_name;
  if not found then
    perform "app".report_left_out('schedules');
  end if;
  perform "app".write_ticks(p_name, p_ticks);
  return true;
end $$;

-- Writes ticks in their order: those with a reason are skipped, the others get what the schedule's overlap asks for.
-- Fence: the primary key, so that no tick has two rows. Locks: the caller has the schedule row.
create or replace function "app".write_ticks(p_name text, p_ticks jsonb) returns void
language plpgsql as $$
declare
  v_tick record;
  v_schedule record;
  v_now timestamptz := "app".clock();
  v_status text;
  v_reason text;
  v_detail text;
  v_open text;
  v_missed jsonb;
begin
  select s.overlap, s.job_type into v_schedule from "app".schedules s where s.name = p_name;
  for v_tick in
    select * from jsonb_to_recordset(p_ticks) as t(
      tick_at timestamptz, until_at timestamptz, parameters jsonb, submission_key text, reason text, detail text)
    order by t.tick_at
  loop
    v_status := 'due';
    v_reason := v_tick.reason;
    v_detail := v_tick.detail;
    if v_reason is not null then
      v_status := 'skipped';
      if v_reason = 'missed' then
        v_missed := jsonb_build_object('tick_at', coalesce(v_missed -> 'tick_at', to_jsonb(v_tick.tick_at)),
          'until_at', coalesce(v_tick.until_at, v_tick.tick_at), 'detail', v_detail);
      end if;
    elsif v_schedule.overlap <> 'allow' then
      v_open := "app".what_a_tick_waits_for(p_name);
      if v_open is not null and v_schedule.overlap = 'wait' then
        v_status := 'waiting';
        v_reason := 'overlap';
        v_detail := v_open;
        if (select count(*) from "app".schedule_ticks t where t.schedule = p_name and t.status = 'waiting') >= 100 then
          v_status := 'skipped';
          v_reason := 'too_many_waiting';
          v_detail := 'a hundred earlier ticks wait already';
        end if;
      elsif v_open is not null then
        v_status := 'skipped';
        v_reason := 'overlap';
        v_detail := v_open;
      end if;
    end if;
    insert into "app".schedule_ticks (
      schedule, tick_at, until_at, status, reason, detail, job_type, parameters, submission_key, created_at, decided_at
    ) values (
      p_name, v_tick.tick_at, v_tick.until_at, v_status, v_reason, v_detail, v_schedule.job_type, v_tick.parameters,
      v_tick.submission_key, v_now, case when v_status = 'skipped' then v_now end
    ) on conflict do nothing;
    if not found and not exists (
      select from "app".schedule_ticks t where t.schedule = p_name and t.tick_at = v_tick.tick_at
    ) then
      perform "app".report_left_out('schedule_ticks');
    end if;
  end loop;
  if v_missed is not null then
    perform "app".note_schedule_event(p_name, v_schedule.job_type, 'schedule.missed', v_missed);
  end if;
end $$;

-- The job of a schedule that has not ended, of the newest tick that has one; null where there is none.
-- It looks at the two hundred newest ticks.
create or replace function "app".find_open_job(p_name text) returns text
language sql stable as $$
  select j.job_id
  from (
    select t.submitted_job_id, t.tick_at from "app".schedule_ticks t
    where t.schedule = p_name order by t.tick_at desc limit 200
  ) t
  join "app".jobs j on j.job_id = t.submitted_job_id
  where j.status in ('queued', 'processing', 'cancelling', 'finalizing')
  order by t.tick_at desc limit 1
$$;

-- What keeps a schedule's next tick from its job, for people; null where nothing does.
-- That is an earlier tick that has no job yet, or an open job among those of its two hundred newest ticks.
create or replace function "app".what_a_tick_waits_for(p_name text) returns text
language sql stable as $$
  select coalesce(
    (select 'job ' || "app".find_open_job(p_name) || ' of the schedule has not ended'),
    (select 'the tick of ' || to_char(t.tick_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') || ' has no job yet'
     from "app".schedule_ticks t where t.schedule = p_name and t.status in ('waiting', 'due')
     order by t.tick_at limit 1))
$$;

-- Lets the first waiting tick of each schedule have its job where nothing is open any more; returns how many.
-- Where the schedule allows overlaps by now, all of its waiting ticks.
-- Fence: the status, under the schedule's row. Locks: schedule rows by name, those that others hold are skipped; then
-- the tick rows.
create or replace function "app".admit_waiting_ticks(p_limit integer) returns integer
language plpgsql as $$
declare
  v_schedule record;
  v_count integer := 0;
  v_changed integer;
begin
  for v_schedule in
    select s.name, s.overlap from "app".schedules s
    where s.name in (select t.schedule from "app".schedule_ticks t where t.status = 'waiting') and s.paused_at is null
    order by s.name limit p_limit for update skip locked
  loop
    update "app".schedule_ticks t set status = 'due', reason = null, detail = null
    where t.schedule = v_schedule.name and t.status = 'waiting'
      and (v_schedule.overlap = 'allow' or (
        t.tick_at = (select min(w.tick_at) from "app".schedule_ticks w
                     where w.schedule = v_schedule.name and w.status = 'waiting')
        and not exists (select from "app".schedule_ticks d
                        where d.schedule = v_schedule.name and d.status = 'due')
        and "app".find_open_job(v_schedule.name) is null));
    get diagnostics v_changed = row_count;
    v_count := v_count + v_changed;
  end loop;
  return v_count;
end $$;

-- Takes ticks whose jobs are to be submitted, the oldest first; others leave them alone for p_hold_seconds.
-- Fence: the status and the hold. Locks: tick rows; those that others hold are skipped.
create or replace function "app".claim_due_ticks(p_limit integer, p_hold_seconds double precision)
returns table (
  schedule text, tick_at timestamptz, job_type text, parameters jsonb, submission_key text, attempt integer,
  is_manual boolean, actor text, created_at timestamptz
)
language sql as $$
  with found as (
    select t.schedule, t.tick_at from "app".schedule_ticks t
    where t.status = 'due' and (t.held_until is null or t.held_until <= "app".clock())
    order by t.tick_at, t.schedule limit p_limit for update skip locked
  )
  update "app".schedule_ticks t
  set attempt = t.attempt + 1, held_until = "app".clock() + p_hold_seconds * interval '1 second'
  from found where t.schedule = found.schedule and t.tick_at = found.tick_at
  returning t.schedule, t.tick_at, t.job_type, t.parameters, t.submission_key, t.attempt, t.is_manual, t.actor,
    t.created_at
$$;

-- Adds a tick that somebody asked for, at this moment, and holds it for the caller; overlap does not count for it.
-- No row: there is no such schedule.
-- Fence: the primary key, with the submission key for a call that is repeated; another tick at the same moment moves
-- this one by a microsecond. Locks: the schedule row.
create or replace function "app".add_manual_tick(
  p_name text, p_tick_at timestamptz, p_parameters jsonb, p_submission_key text, p_actor text,
  p_hold_seconds double precision
) returns table (
  schedule text, tick_at timestamptz, job_type text, parameters jsonb, submission_key text, attempt integer,
  is_manual boolean, actor text, created_at timestamptz
)
language plpgsql as $$
#variable_conflict use_column
declare
  v_at timestamptz := p_tick_at;
begin
  perform 1 from "app".schedules s where s.name = p_name for update;
  while exists (
    select from "app".schedule_ticks t
    where t.schedule = p_name and t.tick_at = v_at and t.submission_key <> p_submission_key
  ) loop
    v_at := v_at + interval '1 microsecond';
  end loop;
  perform "app".record_audit('schedule_run', '', p_actor, null, jsonb_build_object('schedule', p_name, 'tick_at', v_at))
  from "app".schedules s
  where s.name = p_name and not exists (
    select from "app".schedule_ticks t where t.schedule = p_name and t.submission_key = p_submission_key);
  return query
    insert into "app".schedule_ticks (
      schedule, tick_at, is_manual, status, job_type, parameters, submission_key, attempt, held_until, actor, created_at)
    select s.name, v_at, true, 'due', s.job_type, p_parameters, p_submission_key, 1,
      "app".clock() + p_hold_seconds * interval '1 second', p_actor, "app".clock()
    from "app".schedules s where s.name = p_name
    on conflict (schedule, tick_at) do update set held_until = excluded.held_until
    returning schedule, tick_at, job_type, parameters, submission_key, attempt, is_manual, actor, created_at;
  if not found and exists (select from "app".schedules s where s.name = p_name) then
    perform "app".report_left_out('schedule_ticks');
  end if;
end $$;

-- Notes what came of a tick's submission: submitted, failed, or due again after p_delay_seconds.
-- A job that was made counts in any case; the other two, only from the attempt that has the tick.
-- Fence: the status, the key of the submission and the attempt. Locks: the tick row.
create or replace function "app".settle_tick(
  p_name text, p_tick_at timestamptz, p_submission_key text, p_attempt integer, p_status text, p_job_id text,
  p_reason text, p_detail text, p_delay_seconds double precision
) returns boolean
language plpgsql as $$
declare
  v_job_type text;
begin
  update "app".schedule_ticks t set status = p_status, submitted_job_id = p_job_id, reason = p_reason,
    detail = p_detail, held_until = "app".clock() + p_delay_seconds * interval '1 second',
    decided_at = case when p_status <> 'due' then "app".clock() end
  where t.schedule = p_name and t.tick_at = p_tick_at and t.submission_key = p_submission_key
    and case when p_status = 'submitted' then t.status <> 'submitted'
        else t.status = 'due' and t.attempt = p_attempt end
  returning t.job_type into v_job_type;
  if found and p_status = 'failed' then
    perform "app".note_schedule_event(p_name, v_job_type, 'schedule.failed',
      jsonb_build_object('tick_at', p_tick_at, 'reason', p_reason, 'detail', left(p_detail, 1000)));
  end if;
  return v_job_type is not null;
end $$;

-- Deletes a schedule with what it knows of its ticks; jobs stay. Returns whether it was there.
-- Locks: the schedule row, then its ticks.
create or replace function "app".delete_schedule(p_name text, p_actor text) returns boolean
language plpgsql as $$
begin
  perform from "app".schedules s where s.name = p_name for update;
  if not found then
    return false;
  end if;
  delete from "app".schedules s where s.name = p_name;
  if not found then
    perform "app".report_left_out('schedules');
  end if;
  perform "app".record_audit('schedule_delete', '', p_actor, null, jsonb_build_object('schedule', p_name));
  return true;
end $$;

-- Deletes a schedule, by nobody in particular: the form that the release before calls.
create or replace function "app".delete_schedule(p_name text) returns boolean
language sql as $$
  select "app".delete_schedule(p_name, null);
$$;

-- Deletes up to p_limit ticks that were decided about longer ago than p_older_than_seconds; returns how many.
-- Locks: tick rows; those that others hold are skipped.
create or replace function "app".prune_ticks(p_older_than_seconds double precision, p_limit integer) returns integer
language plpgsql as $$
declare
  v_count integer;
begin
  delete from "app".schedule_ticks t
  where t.ctid = any (array(
    select o.ctid from "app".schedule_ticks o
    where o.decided_at < "app".clock() - p_older_than_seconds * interval '1 second'
    order by o.decided_at limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;

comment on function "app"."put_schedule"(p_name text, p_job_type text, p_parameters jsonb, p_cron text, p_time_zone text, p_catch_up text, p_overlap text, p_starts_at timestamptz, p_ends_at timestamptz, p_description text, p_next_tick_at timestamptz, p_revision integer, p_seen_tick_at timestamptz, p_ticks jsonb, p_actor text) is 'Writes a schedule, or another one in the place of that which the caller saw.';
comment on function "app"."schedule_change"(p_action text, p_actor text, p_reason text) is 'The latest change of a schedule as its row holds it.';
comment on function "app"."pause_schedule"(p_name text, p_reason text, p_actor text) is 'Decides about no more ticks of a schedule; again changes nothing.';
comment on function "app"."lock_schedule"(p_name text, p_revision integer, p_seen_tick_at timestamptz) is 'Locks a schedule for a change; false where it is not as the caller saw it.';
comment on function "app"."resume_schedule"(p_name text, p_revision integer, p_seen_tick_at timestamptz, p_ticks jsonb, p_next_tick_at timestamptz, p_reason text, p_actor text) is 'Ends a schedule''s pause and writes down that the ticks in it are skipped.';
comment on function "app"."find_due_schedules"(p_limit integer) is 'Finds schedules with a tick that is due and that nothing is decided about, the longest overdue first.';
comment on function "app"."plan_ticks"(p_name text, p_revision integer, p_seen_tick_at timestamptz, p_ticks jsonb, p_next_tick_at timestamptz) is 'Writes down what becomes of a schedule''s due ticks, and moves its next_tick_at past them.';
comment on function "app"."write_ticks"(p_name text, p_ticks jsonb) is 'Writes ticks in their order: those with a reason are skipped, the others get what the schedule''s overlap asks for.';
comment on function "app"."find_open_job"(p_name text) is 'The job of a schedule that has not ended, of the newest tick that has one; null where there is none.';
comment on function "app"."what_a_tick_waits_for"(p_name text) is 'What keeps a schedule''s next tick from its job, for people; null where nothing does.';
comment on function "app"."admit_waiting_ticks"(p_limit integer) is 'Lets the first waiting tick of each schedule have its job where nothing is open any more; returns how many.';
comment on function "app"."claim_due_ticks"(p_limit integer, p_hold_seconds double precision) is 'Takes ticks whose jobs are to be submitted, the oldest first; others leave them alone for p_hold_seconds.';
comment on function "app"."add_manual_tick"(p_name text, p_tick_at timestamptz, p_parameters jsonb, p_submission_key text, p_actor text, p_hold_seconds double precision) is 'Adds a tick that somebody asked for, at this moment, and holds it for the caller; overlap does not count for it.';
comment on function "app"."settle_tick"(p_name text, p_tick_at timestamptz, p_submission_key text, p_attempt integer, p_status text, p_job_id text, p_reason text, p_detail text, p_delay_seconds double precision) is 'Notes what came of a tick''s submission: submitted, failed, or due again after p_delay_seconds.';
comment on function "app"."delete_schedule"(p_name text, p_actor text) is 'Deletes a schedule with what it knows of its ticks; jobs stay.';
comment on function "app"."delete_schedule"(p_name text) is 'Deletes a schedule, by nobody in particular: the form that the release before calls.';
comment on function "app"."prune_ticks"(p_older_than_seconds double precision, p_limit integer) is 'Deletes up to p_limit ticks that were decided about longer ago than p_older_than_seconds; returns how many.';

-- Settlement: attempts end their tasks as completed or failed, and the last one of a stage ends the stage. Processes
-- call complete_task_and_check_stage, complete_tasks_and_check_stage, complete_tasks_and_claim_next and
-- fail_task_and_check_stage; the others are parts of them.
-- docs/explanation/locking.md shows how completions of one stage commit side by side.

-- Ends tasks of one stage as completed, and looks whether the stage has ended: settle_task if it can, else settle_tasks.
-- In plpgsql, whose plans are cached: a function `language sql` would be planned anew at each call.
create or replace function "app".complete_task_and_check_stage(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[]
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql as $$
begin
  if cardinality(p_task_ids) = 1
    and "app".settle_task(p_job_id, p_run, p_stage, p_lease_id, p_task_ids[1], p_results[1]) then
    updated_ids := p_task_ids;
    is_last_task_in_stage := false;
    stage_status := 'processing';
    job_status := 'processing';
    return next;
    return;
  end if;
  return query
  select * from "app".settle_tasks(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_results, 'completed');
end $$;

-- As complete_task_and_check_stage, for tasks of several messages in one call: each has the lease of its own message.
-- One whose lease is lost is missing from updated_ids, and costs the others nothing.
create or replace function "app".complete_tasks_and_check_stage(
  p_job_id text, p_run integer, p_stage integer, p_lease_ids uuid[], p_task_ids text[], p_results jsonb[]
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql as $$
begin
  return query
  select * from "app".settle_tasks_of_leases(
    p_job_id, p_run, p_stage, p_lease_ids, p_task_ids, p_results, 'completed');
end $$;

-- As complete_tasks_and_check_stage, and claims tasks that wait in line, p_limit at most, under a lease of their
-- own: claim_tasks_in_line. One row for each that was claimed, with the answer for those that ended; one row without a
-- task if none was. The same call once more, after the answer was lost with its connection, ends nothing and finds the
-- tasks that it claimed; otherwise nobody would run them until their lease ends.
create or replace function "app".complete_tasks_and_claim_next(
  p_job_id text, p_run integer, p_stage integer, p_lease_ids uuid[], p_task_ids text[], p_results jsonb[],
  p_task_types text[], p_limit integer, p_lease_id uuid, p_owner text
) returns table (
  updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text,
  task_id text, attempt integer, interruptions integer, task_type text, task_index integer, name text, parameters jsonb
)
language plpgsql as $$
#variable_conflict use_column
begin
  if cardinality(p_task_ids) = 1 and "app".settle_task(
    p_job_id, p_run, p_stage, p_lease_ids[1], p_task_ids[1], p_results[1]) then
    updated_ids := p_task_ids;
    is_last_task_in_stage := false;
    stage_status := 'processing';
    job_status := 'processing';
  else
    select c.updated_ids, c.is_last_task_in_stage, c.stage_status, c.job_status
    into updated_ids, is_last_task_in_stage, stage_status, job_status
    from "app".settle_tasks_of_leases(
      p_job_id, p_run, p_stage, p_lease_ids, p_task_ids, p_results, 'completed') c;
    if cardinality(updated_ids) < cardinality(p_task_ids) then
      return query
      select updated_ids, is_last_task_in_stage, stage_status, job_status, l.*
      from "app".tasks_of_lease(p_job_id, p_run, p_stage, p_lease_id) l;
      if found then
        return;
      end if;
    end if;
  end if;
  return query
  select updated_ids, is_last_task_in_stage, stage_status, job_status, n.*
  from (select) as answer left join "app".claim_tasks_in_line(
    p_job_id, p_run, p_stage, p_task_types, p_limit, p_lease_id, p_owner) n on true;
end $$;

-- Ends tasks of one stage as failed, applies its failure policy, and looks whether the stage has ended: settle_tasks.
create or replace function "app".fail_task_and_check_stage(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_errors jsonb[]
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql as $$
begin
  return query
  select * from "app".settle_tasks(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_errors, 'failed');
end $$;

-- Completes one task that is not watched, of a stage that goes on: most completions of a large stage, in few
-- statements.
-- Its plans are made once, since each row is named by its whole key; without sequential scans, since a planner that
-- sees an empty table would choose to read all of it, and that plan would stay when the table has grown. Returns false,
-- with nothing done, when the task, its stage or its job is not like that: settle_tasks is to be called.
-- Fence: the lease. Locks: the task row, then the stage, shared.
-- Raises CM001 when the stage ended or lost its watch between the update and the lock: call again, it then
-- decides.
create or replace function "app".settle_task(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_id text, p_result jsonb
) returns boolean
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
begin
  update "app".tasks t
  set status = 'completed', lease_id = null, lease_expires_at = null, finished_at = v_now, result = p_result,
      error = null
  where t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_id and t.stage = p_stage
    and t.status is not distinct from 'processing' and t.lease_id = p_lease_id and not t.is_watched
    and exists (
      select 1 from "app".stages s join "app".jobs j on j.job_id = s.job_id
      where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and (j.status = 'processing' and j.run = s.run and s.status = 'processing') and not s.is_unwatched
    );
  if not found then
    return false;
  end if;
  perform "app".share_stage(p_job_id, p_run, p_stage);
  perform 1 from "app".stages s join "app".jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and (j.status = 'processing' and j.run = s.run and s.status = 'processing') and not s.is_unwatched;
  if not found then
    raise exception 'stage % of job % run % ended or lost its watch meanwhile', p_stage, p_job_id, p_run
      using errcode = 'CM001';
  end if;
  return true;
end $$;

-- Ends tasks of one stage, all held under one lease: settle_tasks_of_leases.
create or replace function "app".settle_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_payloads jsonb[], p_status text
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql as $$
begin
  return query
  select * from "app".settle_tasks_of_leases(p_job_id, p_run, p_stage,
    array_fill(p_lease_id, array[cardinality(p_task_ids)]), p_task_ids, p_payloads, p_status);
end $$;

-- Ends tasks of one stage, each named once with its lease, as completed or failed, and looks whether the stage has ended.
-- Tasks that their lease does not hold any more are left alone and missing from updated_ids. A task of a stage or job
-- that has ended meanwhile becomes cancelled: late results are kept out. job_status is where the job goes on; null
-- while it is paused. `is not distinct from`, here and wherever ids name the rows: with `=` a plan may read all of
-- `tasks_leased`, entries of dead rows included, and filter by id.
-- Fence: the lease.
-- Locks: task rows by id; then the stage, shared unless these tasks may be its last or a failure must be counted; then
-- the job row.
-- Raises CM001 when the stage ended or lost its watch between the look at it and the lock: call again, it then
-- decides.
create or replace function "app".settle_tasks_of_leases(
  p_job_id text, p_run integer, p_stage integer, p_lease_ids uuid[], p_task_ids text[], p_payloads jsonb[], p_status text
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_places tid[];
  v_was_watched boolean;
  v_decides boolean;
  v_stage record;
  v_status text;
begin
  select coalesce(array_agg(named.id), array[]::text[]), array_agg(h.place), coalesce(bool_or(h.is_watched), false),
    (
      select p_status = 'failed' or s.is_unwatched
        or not (j.status = 'processing' and j.run = s.run and s.status = 'processing')
      from "app".stages s join "app".jobs j on j.job_id = s.job_id
      where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage
    )
  into updated_ids, v_places, v_was_watched, v_decides
  from (
    select distinct n.id collate "C" as id, n.lease_id from unnest(p_task_ids, p_lease_ids) as n(id, lease_id) order by 1
  ) as named
  cross join lateral (
    select t.ctid as place, t.is_watched from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
      and t.status is not distinct from 'processing' and t.lease_id = named.lease_id
    for update
  ) h;
  is_last_task_in_stage := false;
  if v_was_watched and not v_decides then
    v_decides := not "app".pass_watch(p_job_id, p_run, p_stage, updated_ids);
  end if;
  if v_decides and cardinality(updated_ids) > 0 then
    perform "app".lock_stage(p_job_id, p_run, p_stage);
  elsif cardinality(updated_ids) > 0 then
    perform "app".share_stage(p_job_id, p_run, p_stage);
  end if;
  select s.status as stage_status, j.status as job_status, s.is_unwatched,
    (j.status = 'processing' and j.run = s.run and s.status = 'processing') as is_open
  into v_stage
  from "app".stages s join "app".jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  stage_status := v_stage.stage_status;
  job_status := v_stage.job_status;
  if cardinality(updated_ids) = 0 then
    return next;
    return;
  end if;
  if (v_stage.is_unwatched or not v_stage.is_open) and not v_decides then
    raise exception 'stage % of job % run % ended or lost its watch meanwhile', p_stage, p_job_id, p_run
      using errcode = 'CM001';
  end if;

  v_status := case when v_stage.is_open then p_status else 'cancelled' end;
  perform "app".end_tasks(v_places, v_status, p_task_ids, p_payloads, v_now);

  if v_decides then
    is_last_task_in_stage := "app".check_stage(p_job_id, p_run, p_stage, false,
      case v_status when 'failed' then updated_ids end);
    select s.status, case when j.paused_at is null then j.status end into stage_status, job_status
    from "app".stages s join "app".jobs j on j.job_id = s.job_id
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  end if;
  return next;
end $$;

-- Writes the end of tasks whose rows the caller has locked, at these places; their payloads are among those given.
-- Its plans join by hash: with a nested loop each row would be looked for among all payloads.
create or replace function "app".end_tasks(
  p_places tid[], p_status text, p_task_ids text[], p_payloads jsonb[], p_now timestamptz
) returns void
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_nestloop = off as $$
declare
  v_count integer;
begin
  update "app".tasks t
  set status = p_status, is_watched = false, lease_id = null, lease_expires_at = null, finished_at = p_now,
      result = case p_status when 'completed' then given.payload else t.result end,
      error = case p_status when 'failed' then "app".error_of_attempt(given.payload, t.attempt)
        when 'completed' then null else t.error end
  from unnest(p_task_ids, p_payloads) as given(task_id, payload)
  where t.ctid = any (p_places) and t.task_id = given.task_id;
  get diagnostics v_count = row_count;
  if v_count < cardinality(p_places) then
    perform "app".report_left_out('tasks');
  end if;
end $$;

comment on function "app"."complete_task_and_check_stage"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[]) is 'Ends tasks of one stage as completed, and looks whether the stage has ended: settle_task if it can, else settle_tasks.';
comment on function "app"."complete_tasks_and_check_stage"(p_job_id text, p_run integer, p_stage integer, p_lease_ids uuid[], p_task_ids text[], p_results jsonb[]) is 'As complete_task_and_check_stage, for tasks of several messages in one call: each has the lease of its own message.';
comment on function "app"."complete_tasks_and_claim_next"(p_job_id text, p_run integer, p_stage integer, p_lease_ids uuid[], p_task_ids text[], p_results jsonb[], p_task_types text[], p_limit integer, p_lease_id uuid, p_owner text) is 'As complete_tasks_and_check_stage, and claims tasks that wait in line, p_limit at most, under a lease of their own: claim_tasks_in_line.';
comment on function "app"."fail_task_and_check_stage"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_errors jsonb[]) is 'Ends tasks of one stage as failed, applies its failure policy, and looks whether the stage has ended: settle_tasks.';
comment on function "app"."settle_task"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_id text, p_result jsonb) is 'Completes one task that is not watched, of a stage that goes on: most completions of a large stage, in few statements.';
comment on function "app"."settle_tasks"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_payloads jsonb[], p_status text) is 'Ends tasks of one stage, all held under one lease: settle_tasks_of_leases.';
comment on function "app"."settle_tasks_of_leases"(p_job_id text, p_run integer, p_stage integer, p_lease_ids uuid[], p_task_ids text[], p_payloads jsonb[], p_status text) is 'Ends tasks of one stage, each named once with its lease, as completed or failed, and looks whether the stage has ended.';
comment on function "app"."end_tasks"(p_places tid[], p_status text, p_task_ids text[], p_payloads jsonb[], p_now timestamptz) is 'Writes the end of tasks whose rows the caller has locked, at these places; their payloads are among those given.';

-- Submissions: a job is written once for one id; a further submission gets the job that is there.

-- Writes a job and its first stage, or answers with the job that is there already.
-- Outcome: created; existing (this id was there: the same type and parameters); forced (a nonce was given and this id
-- was there: a new job under p_forced_job_id, `forced_from` this id); rerun (this id was there and had ended: its next
-- run, all of it, with these parameters); refused (this id was there, and its present run is not one for this
-- submission; nothing is written); other_parameters (this id was there, and its present run has other parameters;
-- nothing is written); replayed (the key came before with the same payload: the job that it got then, whatever p_job_id
-- is); key_conflict (the key came before with another payload: nothing is written, the answer names that job).
-- p_if_ended is what the caller wants where the job that is there does not run with these parameters (it has ended, is
-- being cancelled, or a rerun gave it others): return (existing), force (forced; without it a nonce forces whatever
-- runs), rerun (rerun if it has ended), fail (refused). Replays are answered as before, whatever it is. same_parameters
-- is false where the answered job's present run does not have the parameters that its id was made of, also for refused
-- and replayed.
-- Fence: the primary key decides the one winner among simultaneous submissions; the key's lock, among those that carry
-- it; for a rerun, the run that was there before the job's row was locked: of two at one moment one begins it.
-- Locks: the key's advisory lock, then the job row.
create or replace function "app".submit_job(
  p_job_id text, p_job_type text, p_parameters jsonb, p_definition jsonb, p_correlation_id text,
  p_forced_job_id text, p_nonce text,
  p_idempotency_key text, p_payload_hash text, p_if_ended text, p_outside text[]
) returns table (
  created boolean, status text, run integer, outcome text, job_id text, correlation_id text, same_parameters boolean
)
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_key record;
begin
  outcome := 'existing';
  job_id := p_job_id;
  if p_idempotency_key is not null then
    perform "app".lock_idempotency_key(p_idempotency_key);
    select k.job_id, k.payload_hash into v_key
    from "app".idempotency_keys k where k.idempotency_key = p_idempotency_key;
    if found then
      outcome := case when v_key.payload_hash = p_payload_hash then 'replayed' else 'key_conflict' end;
      job_id := v_key.job_id;
    end if;
  end if;

  if outcome = 'existing' then
    if "app".insert_job(p_job_id, p_job_type, p_parameters, p_definition, p_correlation_id, null, null) then
      outcome := 'created';
    else
      outcome := "app".outcome_of_found_job(
        p_job_id, p_parameters, p_definition, p_nonce is not null, p_if_ended, p_outside);
    end if;
    if outcome = 'forced' then
      job_id := p_forced_job_id;
      perform "app".insert_job(
        p_forced_job_id, p_job_type, p_parameters, p_definition, p_correlation_id, p_nonce, p_job_id);
    end if;
  end if;

  created := outcome in ('created', 'forced');
  select j.status, j.run, j.correlation_id, created
    or "app".has_own_parameters(j.job_id, j.run, j.parameters, p_parameters, p_outside)
  into status, run, correlation_id, same_parameters
  from "app".jobs j where j.job_id = submit_job.job_id;
  if outcome = 'existing' and not same_parameters then
    outcome := 'other_parameters';
  end if;
  -- A refused submission leaves its key unused.
  if p_idempotency_key is not null and outcome in ('created', 'forced', 'rerun', 'existing') then
    insert into "app".idempotency_keys (job_id, idempotency_key, payload_hash, created_at)
    values (job_id, p_idempotency_key, p_payload_hash, "app".clock());
    if not found then
      perform "app".report_left_out('idempotency_keys');
    end if;
  end if;
  return next;
end $$;

-- What becomes of a submission whose job is there: existing, forced (which the caller carries out), refused, or rerun.
-- Fence: the run as it was looked at, without a lock. Locks: those of rerun_job.
create or replace function "app".outcome_of_found_job(
  p_job_id text, p_parameters jsonb, p_definition jsonb, p_has_nonce boolean, p_if_ended text, p_outside text[]
) returns text
language plpgsql as $$
declare
  v_found record;
  v_outcome text;
begin
  select j.run, j.status in ('completed', 'completed_with_errors', 'failed', 'cancelled') as has_ended,
    j.status in ('queued', 'processing', 'finalizing')
      and "app".has_own_parameters(j.job_id, j.run, j.parameters, p_parameters, p_outside) as is_on_its_way
  into v_found
  from "app".jobs j where j.job_id = p_job_id;
  if p_has_nonce and (p_if_ended <> 'force' or not v_found.is_on_its_way) then
    return 'forced';
  elsif p_if_ended = 'fail' and not v_found.is_on_its_way then
    return 'refused';
  elsif p_if_ended = 'rerun' and v_found.has_ended then
    select r.outcome into v_outcome from "app".rerun_job(
      p_job_id, v_found.run, 'all', null, p_parameters, p_definition, 'submitted again', null) r;
    return case when v_outcome = 'rerun' then 'rerun' else 'existing' end;
  end if;
  return 'existing';
end $$;

-- Whether the job's present run has the parameters that its id was made of: those submitted, or those of its first run.
-- Only a rerun gives it others. An earlier run with others counts too, unless a rerun of everything came after it: the
-- present run may have kept its results. p_outside: names of parameters that are not in the id, which may differ.
create or replace function "app".has_own_parameters(
  p_job_id text, p_run integer, p_parameters jsonb, p_submitted jsonb, p_outside text[]
) returns boolean
language sql stable as $$
  select p_run = 1 or not exists (
    select from (
      select r.run, r.parameters from "app".job_runs r where r.job_id = p_job_id
      union all select p_run, p_parameters
    ) u
    where u.run >= coalesce((
        select max(e.run) from "app".job_events e
        where e.job_id = p_job_id and e.event = 'job_rerun' and e.stage = 1
          and e.detail ->> 'mode' in ('all', 'from_stage')), 1)
      and u.parameters - p_outside is distinct from p_submitted - p_outside
      and u.parameters - p_outside is distinct from (
        select f.parameters - p_outside from "app".job_runs f where f.job_id = p_job_id and f.run = 1))
$$;

-- Inserts a new job with its first stage; false when its id is taken.
-- Raises CM006 when there is no such job afterwards either: somebody else's trigger left it out.
create or replace function "app".insert_job(
  p_job_id text, p_job_type text, p_parameters jsonb, p_definition jsonb, p_correlation_id text,
  p_nonce text, p_forced_from text
) returns boolean
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
begin
  insert into "app".jobs (
    job_id, job_type, total_stages, parameters, definition, correlation_id, nonce, forced_from, created_at, updated_at
  ) values (
    p_job_id, p_job_type, jsonb_array_length(p_definition -> 'stages'), p_parameters, p_definition,
    p_correlation_id, p_nonce, p_forced_from, v_now, v_now
  ) on conflict do nothing;
  if not found then
    if not exists (select from "app".jobs j where j.job_id = p_job_id) then
      raise exception 'expected job % to be inserted, found no row: a trigger or a rule of the table jobs keeps rows out; '
        'drop it', p_job_id using errcode = 'CM006';
    end if;
    return false;
  end if;
  insert into "app".stages (job_id, run, stage, settings, created_at)
  values (p_job_id, 1, 1, p_definition -> 'stages' -> 0, v_now);
  if not found then
    perform "app".report_left_out('stages');
  end if;
  perform "app".record_event(p_job_id, 1, null, null, 'job_submitted',
    case when p_forced_from is not null then jsonb_build_object('forced_from', p_forced_from) end);
  return true;
end $$;

-- Adds to the event of a submission that began this run: who asked, and what could not be checked.
-- It is a call of its own, since most submissions have nothing to add; a second one changes nothing.
-- Fence: only that run's event, and the rerun's row in the audit log that names nobody. Locks: these rows.
create or replace function "app".note_submission(p_job_id text, p_run integer, p_detail jsonb) returns void
language sql as $$
  update "app".job_events e set detail = e.detail || p_detail
  where e.job_id = p_job_id and e.run = p_run and e.event in ('job_submitted', 'job_rerun');
  update "app".audit_log a set actor = p_detail ->> 'actor'
  where p_run > 1 and p_detail ->> 'actor' is not null and a.job_id = p_job_id and a.action = 'rerun'
    and a.actor is null and (a.detail ->> 'to_run')::integer = p_run;
$$;

-- Keeps the trace of the submission that began this run. It is a call of its own, since most apps record no traces.
-- Fence: the run. Locks: the job row.
create or replace function "app".note_trace(p_job_id text, p_run integer, p_traceparent text) returns void
language sql as $$
  update "app".jobs j set traceparent = p_traceparent where j.job_id = p_job_id and j.run = p_run;
$$;

-- Writes a job and its first stage, as a process of the release before calls it.
-- Its statements are prepared, so neither the arguments nor the result of a function that it knows may change while it
-- runs. Outcomes that it does not know are not returned to it.
create or replace function "app".submit_job(
  p_job_id text, p_job_type text, p_parameters jsonb, p_definition jsonb, p_correlation_id text,
  p_forced_job_id text default null, p_nonce text default null,
  p_idempotency_key text default null, p_payload_hash text default null
) returns table (created boolean, status text, run integer, outcome text, job_id text, correlation_id text)
language sql as $$
  select s.created, s.status, s.run, case s.outcome when 'other_parameters' then 'existing' else s.outcome end,
    s.job_id, s.correlation_id
  from "app".submit_job(p_job_id, p_job_type, p_parameters, p_definition, p_correlation_id, p_forced_job_id, p_nonce,
    p_idempotency_key, p_payload_hash, 'return', array[]::text[]) s;
$$;

-- Writes many submissions in one transaction: all of them, or none. One row each, by its place (nth, from 1).
-- p_jobs: objects with what submit_job takes by name, and with tags, start_at, priority and detail (note_submission's).
-- Tags, start_at and priority count for a job or a run that begins here; a job that was there keeps its own.
-- Fence: that of submit_job. Locks: all keys in their order, then those of submit_job job by job in the order of ids, so
-- that two calls at one moment do not wait for each other.
create or replace function "app".submit_jobs(p_jobs jsonb[]) returns table (
  nth integer, status text, run integer, outcome text, job_id text, correlation_id text, same_parameters boolean
)
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_item record;
  v_key text;
begin
  for v_key in
    select distinct u.item ->> 'key' collate "C" as key from unnest(p_jobs) u(item)
    where u.item ->> 'key' is not null order by 1
  loop
    perform "app".lock_idempotency_key(v_key);
  end loop;
  for v_item in
    select u.place, u.item from unnest(p_jobs) with ordinality as u(item, place)
    order by u.item ->> 'job_id' collate "C", u.place
  loop
    nth := v_item.place;
    select s.status, s.run, s.outcome, s.job_id, s.correlation_id, s.same_parameters
    into submit_jobs.status, submit_jobs.run, submit_jobs.outcome, submit_jobs.job_id, submit_jobs.correlation_id,
      submit_jobs.same_parameters
    from "app".submit_job(
      v_item.item ->> 'job_id', v_item.item ->> 'job_type', v_item.item -> 'parameters', v_item.item -> 'definition',
      v_item.item ->> 'correlation_id', v_item.item ->> 'forced_job_id', v_item.item ->> 'nonce',
      v_item.item ->> 'key', v_item.item ->> 'payload_hash', v_item.item ->> 'if_ended',
      array(select jsonb_array_elements_text(v_item.item -> 'outside'))) s;
    if submit_jobs.outcome in ('created', 'forced', 'rerun') then
      perform "app".mark_submission(submit_jobs.job_id, submit_jobs.run, v_item.item);
    end if;
    return next;
  end loop;
end $$;

-- Gives a run that a submission began what its submitter wished beside its parameters: tags, start_at, priority, detail.
-- A start in the past is none. Deadlines count from the start. Locks: the job row and the stage row, both new.
create or replace function "app".mark_submission(p_job_id text, p_run integer, p_item jsonb) returns void
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
  v_start timestamptz := nullif(greatest((p_item ->> 'start_at')::timestamptz, v_now), v_now);
  v_tags jsonb := nullif(p_item -> 'tags', jsonb_build_object());
begin
  if v_start is not null or v_tags is not null or p_item ->> 'priority' is not null then
    update "app".jobs j set tags = coalesce(v_tags, j.tags), start_at = v_start, due_at = v_start,
      priority = coalesce(p_item ->> 'priority', j.priority),
      deadline_at = j.deadline_at + coalesce(v_start - v_now, interval '0')
    where j.job_id = p_job_id and j.run = p_run;
  end if;
  if v_start is not null then
    update "app".stages s
    set deadline_at = s.deadline_at + (v_start - v_now), queue_deadline_at = s.queue_deadline_at + (v_start - v_now)
    where s.job_id = p_job_id and s.run = p_run and s.stage = 1;
  end if;
  if p_item -> 'detail' <> jsonb_build_object() then
    perform "app".note_submission(p_job_id, p_run, p_item -> 'detail');
  end if;
end $$;

-- Notes that the messages which begin these jobs are confirmed: mark_job_announced for many, of stage 1.
-- Locks: job rows by id.
create or replace function "app".mark_jobs_announced(p_job_ids text[], p_runs integer[]) returns integer
language plpgsql as $$
declare
  v_item record;
  v_count integer := 0;
begin
  for v_item in
    select u.id, u.run from unnest(p_job_ids, p_runs) as u(id, run) order by u.id collate "C"
  loop
    v_count := v_count + "app".mark_job_announced(v_item.id, v_item.run, 1)::integer;
  end loop;
  return v_count;
end $$;

comment on function "app"."submit_job"(p_job_id text, p_job_type text, p_parameters jsonb, p_definition jsonb, p_correlation_id text, p_forced_job_id text, p_nonce text, p_idempotency_key text, p_payload_hash text, p_if_ended text, p_outside text[]) is 'Writes a job and its first stage, or answers with the job that is there already.';
comment on function "app"."outcome_of_found_job"(p_job_id text, p_parameters jsonb, p_definition jsonb, p_has_nonce boolean, p_if_ended text, p_outside text[]) is 'What becomes of a submission whose job is there: existing, forced (which the caller carries out), refused, or rerun.';
comment on function "app"."has_own_parameters"(p_job_id text, p_run integer, p_parameters jsonb, p_submitted jsonb, p_outside text[]) is 'Whether the job''s present run has the parameters that its id was made of: those submitted, or those of its first run.';
comment on function "app"."insert_job"(p_job_id text, p_job_type text, p_parameters jsonb, p_definition jsonb, p_correlation_id text, p_nonce text, p_forced_from text) is 'Inserts a new job with its first stage; false when its id is taken.';
comment on function "app"."note_submission"(p_job_id text, p_run integer, p_detail jsonb) is 'Adds to the event of a submission that began this run: who asked, and what could not be checked.';
comment on function "app"."note_trace"(p_job_id text, p_run integer, p_traceparent text) is 'Keeps the trace of the submission that began this run.';
comment on function "app"."submit_job"(p_job_id text, p_job_type text, p_parameters jsonb, p_definition jsonb, p_correlation_id text, p_forced_job_id text, p_nonce text, p_idempotency_key text, p_payload_hash text) is 'Writes a job and its first stage, as a process of the release before calls it.';
comment on function "app"."submit_jobs"(p_jobs jsonb[]) is 'Writes many submissions in one transaction: all of them, or none.';
comment on function "app"."mark_submission"(p_job_id text, p_run integer, p_item jsonb) is 'Gives a run that a submission began what its submitter wished beside its parameters: tags, start_at, priority, detail.';
comment on function "app"."mark_jobs_announced"(p_job_ids text[], p_runs integer[]) is 'Notes that the messages which begin these jobs are confirmed: mark_job_announced for many, of stage 1.';

-- The watch: while a stage runs, exactly one of its open tasks is watched. A process that ends any other task knows
-- that it is not the last, and does not look at its neighbours; the one that ends the watched task passes the watch on,
-- or is the last. So completions of one stage share its lock and commit side by side. docs/explanation/locking.md has a
-- diagram and figures.

-- Passes the watch from tasks that end in this transaction to another open task that nobody holds at this moment.
-- False when there is none: then only the exclusive stage lock can show whether the stage has ended.
-- Locks: one more task row, not waited for; before the stage's lock.
create or replace function "app".pass_watch(p_job_id text, p_run integer, p_stage integer, p_ending_ids text[])
returns boolean
language plpgsql set enable_seqscan = off as $$
declare
  v_heir text;
begin
  -- The last id first: tasks are taken from the front, so it is watched longest.
  select t.task_id into v_heir from "app".tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
    and t.status in ('pending', 'queued', 'processing', 'pending_retry') and t.task_id <> all (p_ending_ids)
  order by t.task_id desc limit 1 for update skip locked;
  if v_heir is null then
    return false;
  end if;
  update "app".tasks t set is_watched = true
  where t.job_id = p_job_id and t.run = p_run and t.task_id = v_heir;
  return true;
end $$;

-- Makes sure that an open task is watched, after others were ended. False when no task is open.
-- If other transactions hold every open task at this moment, the stage is marked as unwatched: the end of each of its
-- tasks then decides under the exclusive lock. Waiting for such a row would be a deadlock, since its holder may wait
-- for this stage.
-- Locks: the stage's exclusive lock is held by the caller; then one task row, not waited for, and the stage row.
create or replace function "app".ensure_watch(p_job_id text, p_run integer, p_stage integer) returns boolean
language plpgsql set enable_seqscan = off as $$
declare
  v_task_id text;
begin
  if exists (
    select 1 from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.is_watched
      and t.status in ('pending', 'queued', 'processing', 'pending_retry')
  ) then
    return true;
  end if;
  select t.task_id into v_task_id from "app".tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
    and t.status in ('pending', 'queued', 'processing', 'pending_retry')
  order by t.task_id desc limit 1 for update skip locked;
  if v_task_id is null and not exists (
    select 1 from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and t.status in ('pending', 'queued', 'processing', 'pending_retry')
  ) then
    return false;
  end if;
  update "app".tasks t set is_watched = true
  where t.job_id = p_job_id and t.run = p_run and t.task_id = v_task_id;
  update "app".stages s set is_unwatched = v_task_id is null
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.is_unwatched <> (v_task_id is null);
  return true;
end $$;

comment on function "app"."pass_watch"(p_job_id text, p_run integer, p_stage integer, p_ending_ids text[]) is 'Passes the watch from tasks that end in this transaction to another open task that nobody holds at this moment.';
comment on function "app"."ensure_watch"(p_job_id text, p_run integer, p_stage integer) is 'Makes sure that an open task is watched, after others were ended.';

-- Webhooks: addresses that receive events. Deliveries are rows, written in the transaction of what happened: none is lost, and none
-- is sent for what did not happen. A sender takes them under a hold, so that one process at a time sends each.

-- Whether a text fits one of these patterns, in which a star is any characters; or there is no pattern.
create or replace function "app".fits_patterns(p_text text, p_patterns text[]) returns boolean
language sql immutable as $$
  select cardinality(p_patterns) = 0 or exists (
    select from unnest(p_patterns) as p(pattern)
    where p_text like replace(replace(replace(replace(p.pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%'))
$$;

-- Writes the deliveries of something that happened to a job, for each webhook that asks for it. Without webhooks it
-- reads an empty table. Locks: none but the new rows'; the caller has the job row.
create or replace function "app".note_job_event(p_job_id text, p_run integer, p_event text) returns void
language plpgsql as $$
begin
  if not exists (select from "app".webhooks) then
    return;
  end if;
  insert into "app".webhook_deliveries (webhook, delivery_id, event, subject, data, due_at, created_at)
  select w.name, gen_random_uuid()::text, p_event, p_job_id, jsonb_strip_nulls(jsonb_build_object(
      'job_id', j.job_id, 'job_type', j.job_type, 'run', p_run, 'status', j.status, 'stage', j.stage,
      'total_stages', j.total_stages, 'correlation_id', j.correlation_id, 'tags', j.tags,
      'error_type', j.error ->> 'type', 'error_message', left(j.error ->> 'message', 1000),
      'created_at', j.created_at, 'finished_at', j.finished_at)),
    "app".clock(), "app".clock()
  from "app".jobs j
  join "app".webhooks w on p_event = any (w.events) and not w.is_paused
    and "app".fits_patterns(j.job_type, w.job_types) and (w.tags is null or j.tags @> w.tags)
  where j.job_id = p_job_id;
end $$;

-- Writes deliveries of job.failing for the webhooks whose number of failed tasks was reached between two counts of
-- one stage. Locks: none but the new rows'.
create or replace function "app".note_failed_tasks(
  p_job_id text, p_run integer, p_stage integer, p_count_before integer, p_count integer
) returns void
language plpgsql as $$
begin
  insert into "app".webhook_deliveries (webhook, delivery_id, event, subject, data, due_at, created_at)
  select w.name, gen_random_uuid()::text, 'job.failing', p_job_id, jsonb_strip_nulls(jsonb_build_object(
      'job_id', j.job_id, 'job_type', j.job_type, 'run', p_run, 'status', j.status, 'stage', p_stage,
      'total_stages', j.total_stages, 'correlation_id', j.correlation_id, 'tags', j.tags,
      'failed_tasks', p_count, 'created_at', j.created_at)),
    "app".clock(), "app".clock()
  from "app".jobs j
  join "app".webhooks w on 'job.failing' = any (w.events) and not w.is_paused
    and w.failed_tasks > p_count_before and w.failed_tasks <= p_count
    and "app".fits_patterns(j.job_type, w.job_types) and (w.tags is null or j.tags @> w.tags)
  where j.job_id = p_job_id;
end $$;

-- When something of a job's present stage last began, ended or was taken into its window, or the job itself moved.
-- Of a stage that is announced in windows it looks at those of the window alone, so that it reads few of many tasks.
create or replace function "app".last_move(p_job_id text, p_run integer, p_stage integer, p_moved_at timestamptz)
returns timestamptz
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_stage record;
begin
  select s.planned_at, s.window_at, coalesce(s.window_from, '') as first, s.window_after as last into v_stage
  from "app".stages s where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  return greatest(p_moved_at, v_stage.planned_at, v_stage.window_at, (
    select max(greatest(t.started_at, t.finished_at)) from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and t.task_id >= v_stage.first and (v_stage.last is null or t.task_id <= v_stage.last)));
end $$;

-- Writes deliveries of job.stalled for jobs that have not moved for a webhook's time: one for each time that a job
-- stops. Returns for how many jobs. Paused jobs, and those that are to start later, wait on purpose.
-- It looks at up to p_limit jobs, in random order. Fence: stall_noted_at, under the job row. Locks: job rows; those that
-- others hold are skipped.
create or replace function "app".note_stalled_jobs(p_limit integer) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_shortest integer;
  v_job_id text;
  v_job record;
  v_moved_at timestamptz;
  v_count integer := 0;
begin
  select min(w.stalled_seconds) into v_shortest from "app".webhooks w
  where 'job.stalled' = any (w.events) and not w.is_paused;
  if v_shortest is null then
    return 0;
  end if;
  for v_job_id in
    select o.job_id from (
      select j.job_id from "app".jobs j
      where j.status in ('queued', 'processing', 'cancelling', 'finalizing') and j.updated_at < v_now - v_shortest * interval '1 second'
        and j.paused_at is null and (j.start_at is null or j.start_at < v_now - v_shortest * interval '1 second')
      order by random() limit p_limit
    ) o
    order by o.job_id
  loop
    select j.job_id, j.job_type, j.run, j.stage, j.total_stages, j.status, j.correlation_id, j.tags, j.created_at,
      j.stall_noted_at, greatest(j.updated_at, j.start_at) as moved_at
    into v_job
    from "app".jobs j
    where j.job_id = v_job_id and j.status in ('queued', 'processing', 'cancelling', 'finalizing') and j.paused_at is null for update skip locked;
    continue when not found;
    v_moved_at := "app".last_move(v_job.job_id, v_job.run, v_job.stage, v_job.moved_at);
    insert into "app".webhook_deliveries (webhook, delivery_id, event, subject, data, due_at, created_at)
    select w.name, gen_random_uuid()::text, 'job.stalled', v_job.job_id, jsonb_strip_nulls(jsonb_build_object(
        'job_id', v_job.job_id, 'job_type', v_job.job_type, 'run', v_job.run, 'status', v_job.status,
        'stage', v_job.stage, 'total_stages', v_job.total_stages, 'correlation_id', v_job.correlation_id,
        'tags', v_job.tags, 'created_at', v_job.created_at, 'moved_at', v_moved_at,
        'stalled_seconds', w.stalled_seconds, 'explain', '/api/jobs/' || v_job.job_id || '/explain')),
      v_now, v_now
    from "app".webhooks w
    where 'job.stalled' = any (w.events) and not w.is_paused
      and v_moved_at + w.stalled_seconds * interval '1 second' <= v_now
      and (v_job.stall_noted_at is null or v_moved_at + w.stalled_seconds * interval '1 second' > v_job.stall_noted_at)
      and "app".fits_patterns(v_job.job_type, w.job_types) and (w.tags is null or v_job.tags @> w.tags);
    if found then
      update "app".jobs j set stall_noted_at = v_now where j.job_id = v_job.job_id;
      v_count := v_count + 1;
    end if;
  end loop;
  return v_count;
end $$;

-- Writes the deliveries of something that happened to a schedule. A webhook that asks for tags is about jobs alone.
-- Locks: none but the new rows'.
create or replace function "app".note_schedule_event(p_name text, p_job_type text, p_event text, p_data jsonb)
returns void
language plpgsql as $$
begin
  insert into "app".webhook_deliveries (webhook, delivery_id, event, subject, data, due_at, created_at)
  select w.name, gen_random_uuid()::text, p_event, p_name, jsonb_strip_nulls(
      jsonb_build_object('schedule', p_name, 'job_type', p_job_type) || p_data),
    "app".clock(), "app".clock()
  from "app".webhooks w
  where p_event = any (w.events) and not w.is_paused and w.tags is null
    and "app".fits_patterns(p_job_type, w.job_types);
end $$;

-- Writes a webhook, or replaces the one of its name; what waits for it then goes to the new address.
-- p_secret_seed is used where the webhook has no secret yet and p_secret_setting is null; an older seed stays.
-- Returns whether it is new and the seed that counts. Locks: the webhook row.
create or replace function "app".put_webhook(
  p_name text, p_url text, p_url_setting text, p_events text[], p_job_types text[], p_tags jsonb,
  p_failed_tasks integer, p_is_paused boolean, p_secret_setting text, p_secret_seed text, p_description text,
  p_actor text, p_stalled_seconds integer
) returns table (is_new boolean, seed text)
language plpgsql as $$
declare
  v_now timestamptz := "app".clock();
begin
  insert into "app".webhooks as w (
    name, url, url_setting, events, job_types, tags, failed_tasks, stalled_seconds, is_paused, secret_setting, secret_seed, description,
    last_change, created_at, updated_at
  ) values (
    p_name, p_url, p_url_setting, p_events, p_job_types, p_tags, p_failed_tasks, p_stalled_seconds, p_is_paused,
    p_secret_setting,
    case when p_secret_setting is null then p_secret_seed end, p_description,
    jsonb_strip_nulls(jsonb_build_object('action', 'created', 'actor', p_actor, 'at', v_now)), v_now, v_now
  )
  on conflict (name) do update set url = p_url, url_setting = p_url_setting, events = p_events,
    job_types = p_job_types, tags = p_tags, failed_tasks = p_failed_tasks, stalled_seconds = p_stalled_seconds,
    is_paused = p_is_paused,
    secret_setting = p_secret_setting,
    secret_seed = case when p_secret_setting is null then coalesce(w.secret_seed, p_secret_seed) end,
    former_seed = case when p_secret_setting is null then w.former_seed end,
    description = p_description, revision = w.revision + 1, updated_at = v_now,
    last_change = jsonb_strip_nulls(jsonb_build_object('action', 'replaced', 'actor', p_actor, 'at', v_now))
  returning w.revision = 1, w.secret_seed into is_new, seed;
  if not found then
    perform "app".report_left_out('webhooks');
  end if;
  perform "app".record_audit('webhook_put', '', p_actor, null, jsonb_build_object('webhook', p_name));
  return next;
end $$;

-- Writes a webhook, as the release before calls it: it knows no job.stalled, and leaves the time as it is.
create or replace function "app".put_webhook(
  p_name text, p_url text, p_url_setting text, p_events text[], p_job_types text[], p_tags jsonb,
  p_failed_tasks integer, p_is_paused boolean, p_secret_setting text, p_secret_seed text, p_description text,
  p_actor text
) returns table (is_new boolean, seed text)
language sql as $$
  select p.is_new, p.seed from "app".put_webhook(p_name, p_url, p_url_setting, p_events, p_job_types, p_tags,
    p_failed_tasks, p_is_paused, p_secret_setting, p_secret_seed, p_description, p_actor,
    coalesce((select w.stalled_seconds from "app".webhooks w where w.name = p_name), 1800)) p;
$$;

-- Gives a webhook another secret; for p_both_seconds deliveries are signed with the former one too.
-- Returns false where there is no such webhook, or its secret is in an app setting. Locks: the webhook row.
create or replace function "app".rotate_webhook_secret(
  p_name text, p_secret_seed text, p_both_seconds double precision, p_actor text
) returns boolean
language plpgsql as $$
begin
  perform from "app".webhooks w where w.name = p_name and w.secret_seed is not null for update;
  if not found then
    return false;
  end if;
  update "app".webhooks w
  set former_seed = w.secret_seed, former_until = "app".clock() + p_both_seconds * interval '1 second',
    secret_seed = p_secret_seed, revision = w.revision + 1, updated_at = "app".clock(),
    last_change = jsonb_strip_nulls(jsonb_build_object('action', 'rotated', 'actor', p_actor, 'at', "app".clock()))
  where w.name = p_name;
  if not found then
    perform "app".report_left_out('webhooks');
  end if;
  perform "app".record_audit('webhook_rotate', '', p_actor, null, jsonb_build_object('webhook', p_name));
  return true;
end $$;

-- Deletes a webhook with its deliveries; returns whether it was there. Locks: the webhook row, then its deliveries.
create or replace function "app".delete_webhook(p_name text, p_actor text) returns boolean
language plpgsql as $$
declare
  v_found integer;
  v_deleted integer;
begin
  perform from "app".webhooks w where w.name = p_name for update;
  if not found then
    return false;
  end if;
  delete from "app".webhooks w where w.name = p_name;
  if not found then
    perform "app".report_left_out('webhooks');
  end if;
  -- Those that were there: a job that ends meanwhile may add one.
  perform from "app".webhook_deliveries d where d.webhook = p_name for update;
  get diagnostics v_found = row_count;
  delete from "app".webhook_deliveries d where d.webhook = p_name;
  get diagnostics v_deleted = row_count;
  if v_deleted < v_found then
    perform "app".report_left_out('webhook_deliveries');
  end if;
  perform "app".record_audit('webhook_delete', '', p_actor, null, jsonb_build_object('webhook', p_name));
  return true;
end $$;

-- Writes a delivery that somebody asks for as a test. Returns its id; null where there is no such webhook.
-- Locks: the webhook row, shared, then the new row's.
create or replace function "app".add_test_delivery(p_name text, p_actor text) returns text
language plpgsql as $$
declare
  v_delivery_id text;
begin
  perform from "app".webhooks w where w.name = p_name for key share;
  if not found then
    return null;
  end if;
  insert into "app".webhook_deliveries (webhook, delivery_id, event, subject, data, due_at, created_at)
  values (p_name, gen_random_uuid()::text, 'webhook.test', p_name,
    jsonb_strip_nulls(jsonb_build_object('webhook', p_name, 'actor', p_actor)), "app".clock(), "app".clock())
  returning delivery_id into v_delivery_id;
  if not found then
    perform "app".report_left_out('webhook_deliveries');
  end if;
  return v_delivery_id;
end $$;

-- Lets an ended delivery be sent again, with all its attempts. Returns its status before; null where it is not there.
-- Fence: it is not pending. Locks: the delivery row.
create or replace function "app".redeliver(p_name text, p_delivery_id text, p_actor text) returns text
language plpgsql as $$
declare
  v_status text;
begin
  select d.status into v_status from "app".webhook_deliveries d
  where d.webhook = p_name and d.delivery_id = p_delivery_id for update;
  if v_status <> 'pending' then
    update "app".webhook_deliveries d
    set status = 'pending', first_attempt = d.attempt, due_at = "app".clock(), settled_at = null, reason = null
    where d.webhook = p_name and d.delivery_id = p_delivery_id;
    if not found then
      perform "app".report_left_out('webhook_deliveries');
    end if;
    perform "app".record_audit('webhook_redeliver', '', p_actor, null,
      jsonb_build_object('webhook', p_name, 'delivery_id', p_delivery_id));
  end if;
  return v_status;
end $$;

-- Takes deliveries that are due, first for webhooks with few on their way, of each at most p_most_each at a time; others
-- leave them alone for p_hold_seconds. So a receiver that does not answer keeps a few of a sender's places, and no more.
-- Fence: the status and the hold. Locks: delivery rows; those that others hold are skipped.
create or replace function "app".claim_deliveries(
  p_limit integer, p_most_each integer, p_hold_seconds double precision
) returns table (
  webhook text, delivery_id text, event text, subject text, data jsonb, attempt integer, first_attempt integer,
  created_at timestamptz, url text, url_setting text, secret_setting text, secret_seed text, former_seed text
)
language sql as $$
  with found as (
    select w.name, o.delivery_id, w.url, w.url_setting, w.secret_setting, w.secret_seed,
      case when w.former_until > "app".clock() then w.former_seed end as former_seed
    from "app".webhooks w
    cross join lateral (
      select count(*) as count from "app".webhook_deliveries h
      where h.webhook = w.name and h.held_until > "app".clock()
    ) held
    cross join lateral (
      select d.delivery_id, d.due_at from "app".webhook_deliveries d
      where d.webhook = w.name and d.status = 'pending' and d.due_at <= "app".clock()
        and (d.held_until is null or d.held_until <= "app".clock())
      order by d.due_at limit greatest(0, p_most_each - held.count) for update skip locked
    ) o
    where not w.is_paused order by held.count, o.due_at limit p_limit
  )
  update "app".webhook_deliveries d
  set attempt = d.attempt + 1, held_until = "app".clock() + p_hold_seconds * interval '1 second'
  from found f where d.webhook = f.name and d.delivery_id = f.delivery_id
  returning d.webhook, d.delivery_id, d.event, d.subject, d.data, d.attempt, d.first_attempt, d.created_at, f.url,
    f.url_setting, f.secret_setting, f.secret_seed, f.former_seed
$$;

-- Adds to a delivery of job.stalled why the job does not move; returns the data that it has now, null where it is gone.
-- Fence: it is pending and has no reason, so that each attempt sends the same. Locks: the delivery row.
create or replace function "app".add_delivery_reason(p_webhook text, p_delivery_id text, p_why jsonb) returns jsonb
language sql as $$
  update "app".webhook_deliveries d
  set data = case
    when d.status = 'pending' and not d.data ? 'why' then d.data || jsonb_build_object('why', p_why) else d.data end
  where d.webhook = p_webhook and d.delivery_id = p_delivery_id
  returning d.data
$$;

-- Notes what came of an attempt: delivered, dead, or pending again after p_delay_seconds.
-- Returns false where a later attempt has the delivery, or it was settled.
-- Fence: the status and the attempt. Locks: the delivery row.
create or replace function "app".settle_delivery(
  p_webhook text, p_delivery_id text, p_attempt integer, p_status text, p_http_status integer, p_reason text,
  p_delay_seconds double precision
) returns boolean
language plpgsql as $$
begin
  update "app".webhook_deliveries d
  set status = p_status, http_status = p_http_status, reason = p_reason, held_until = null,
    due_at = "app".clock() + coalesce(p_delay_seconds, 0) * interval '1 second',
    settled_at = case when p_status <> 'pending' then "app".clock() end
  where d.webhook = p_webhook and d.delivery_id = p_delivery_id and d.status = 'pending' and d.attempt = p_attempt;
  return found;
end $$;

-- Deletes up to p_limit deliveries that were settled longer ago than p_older_than_seconds, or whose webhook was deleted
-- while they were written; returns how many. Locks: delivery rows; those that others hold are skipped.
create or replace function "app".prune_deliveries(p_older_than_seconds double precision, p_limit integer)
returns integer
language plpgsql as $$
declare
  v_count integer;
begin
  delete from "app".webhook_deliveries d
  where d.ctid = any (array(
    select o.ctid from "app".webhook_deliveries o
    where o.settled_at < "app".clock() - p_older_than_seconds * interval '1 second'
      or (o.status = 'pending' and not exists (select from "app".webhooks w where w.name = o.webhook))
    limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;

comment on function "app"."fits_patterns"(p_text text, p_patterns text[]) is 'Whether a text fits one of these patterns, in which a star is any characters; or there is no pattern.';
comment on function "app"."note_job_event"(p_job_id text, p_run integer, p_event text) is 'Writes the deliveries of something that happened to a job, for each webhook that asks for it.';
comment on function "app"."note_failed_tasks"(p_job_id text, p_run integer, p_stage integer, p_count_before integer, p_count integer) is 'Writes deliveries of job.failing for the webhooks whose number of failed tasks was reached between two counts of one stage.';
comment on function "app"."last_move"(p_job_id text, p_run integer, p_stage integer, p_moved_at timestamptz) is 'When something of a job''s present stage last began, ended or was taken into its window, or the job itself moved.';
comment on function "app"."note_stalled_jobs"(p_limit integer) is 'Writes deliveries of job.stalled for jobs that have not moved for a webhook''s time: one for each time that a job stops.';
comment on function "app"."note_schedule_event"(p_name text, p_job_type text, p_event text, p_data jsonb) is 'Writes the deliveries of something that happened to a schedule.';
comment on function "app"."put_webhook"(p_name text, p_url text, p_url_setting text, p_events text[], p_job_types text[], p_tags jsonb, p_failed_tasks integer, p_is_paused boolean, p_secret_setting text, p_secret_seed text, p_description text, p_actor text, p_stalled_seconds integer) is 'Writes a webhook, or replaces the one of its name; what waits for it then goes to the new address.';
comment on function "app"."put_webhook"(p_name text, p_url text, p_url_setting text, p_events text[], p_job_types text[], p_tags jsonb, p_failed_tasks integer, p_is_paused boolean, p_secret_setting text, p_secret_seed text, p_description text, p_actor text) is 'Writes a webhook, as the release before calls it: it knows no job.stalled, and leaves the time as it is.';
comment on function "app"."rotate_webhook_secret"(p_name text, p_secret_seed text, p_both_seconds double precision, p_actor text) is 'Gives a webhook another secret; for p_both_seconds deliveries are signed with the former one too.';
comment on function "app"."delete_webhook"(p_name text, p_actor text) is 'Deletes a webhook with its deliveries; returns whether it was there.';
comment on function "app"."add_test_delivery"(p_name text, p_actor text) is 'Writes a delivery that somebody asks for as a test.';
comment on function "app"."redeliver"(p_name text, p_delivery_id text, p_actor text) is 'Lets an ended delivery be sent again, with all its attempts.';
comment on function "app"."claim_deliveries"(p_limit integer, p_most_each integer, p_hold_seconds double precision) is 'Takes deliveries that are due, first for webhooks with few on their way, of each at most p_most_each at a time; others leave them alone for p_hold_seconds.';
comment on function "app"."add_delivery_reason"(p_webhook text, p_delivery_id text, p_why jsonb) is 'Adds to a delivery of job.stalled why the job does not move; returns the data that it has now, null where it is gone.';
comment on function "app"."settle_delivery"(p_webhook text, p_delivery_id text, p_attempt integer, p_status text, p_http_status integer, p_reason text, p_delay_seconds double precision) is 'Notes what came of an attempt: delivered, dead, or pending again after p_delay_seconds.';
comment on function "app"."prune_deliveries"(p_older_than_seconds double precision, p_limit integer) is 'Deletes up to p_limit deliveries that were settled longer ago than p_older_than_seconds, or whose webhook was deleted while they were written; returns how many.';

-- Windows: of a large stage only some tasks are announced at a time, more as they begin and end, so that no open stage
-- has the queue for itself. Tasks are taken in the order of their ids: those up to `window_after` have been, those after it
-- wait in line. So the window is one update of the stage's row for each take, and of no task row.
-- docs/adr/0028-announce-stages-in-windows.md has the reasons.

-- How many tasks a stage announces at first, where nothing is known of how long they last.
create or replace function "app".first_window(p_settings jsonb) returns integer
language sql immutable as $$
  select least(32 * coalesce((p_settings ->> 'tasks_per_message')::integer, 1),
    (p_settings ->> 'max_parallel')::integer)
$$;

-- Opens the window of a stage, none of whose tasks is announced: nothing is taken yet. A stage with limits waits for
-- its turn at them from now on.
-- Locks: the stage row and its limits' rows, in the transaction that wrote the tasks.
create or replace function "app".open_window(p_job_id text, p_run integer, p_stage integer, p_tasks integer)
returns void
language plpgsql as $$
declare
  v_settings jsonb;
begin
  update "app".stages s set window_after = '', window_from = '', window_size = p_tasks, window_open = 0
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage
  returning s.settings into v_settings;
  if v_settings ->> 'limits' is not null then
    perform "app".ensure_limits(v_settings, true);
    perform "app".wait_for_limit(p_job_id, p_run, p_stage, ("app".limit_names(v_settings))[1]);
  end if;
end $$;

-- How many tasks should wait in the queue beside those that run, for a stage with this many running, and this many
-- ending per second.
-- In messages it is 2.5 times the root of what half a second takes, or of what runs: enough that no worker waits, and
-- little for others to wait for. A root, so that stages which share a queue come to have equal windows.
create or replace function "app".window_size(p_running integer, p_rate double precision, p_per_message integer)
returns integer
language sql immutable as $$
  select ceil(2.5 * sqrt(greatest(p_running, p_rate / 2, p_per_message) / p_per_message))::integer * p_per_message
$$;

-- A job's weight among others: how much more it gets of what they share.
create or replace function "app".window_weight(p_priority text) returns double precision
language sql immutable as $$
  select case p_priority when 'high' then 4.0 when 'low' then 0.25 else 1.0 end
$$;

-- Takes the next tasks of a stage into its window, without a lease, and returns them; the caller sends their messages.
-- It may be called at any time and any number of times: it fills the window and no more, by a count of what is open in
-- it. Those that went back into the line (release_tasks_into_line) come first, together with those that are due for
-- another attempt and have no message. Tasks that wait for another attempt, or for its message, have no place in it, but
-- count for max_parallel until they are due. Nothing is taken where there is no room, or little while messages of
-- the stage wait: their processes will call again. What a crash leaves without a message is found by
-- find_unannounced_tasks. The commit is not waited for, unless max_parallel rests on it: if a crash undoes it, those of
-- the same tasks that have not begun are taken again. Where processes take tasks in line without a message
-- (claim_tasks_in_line), the rows are locked, so that no task is given to both.
-- mark_each: one message of this number should be marked, whose process calls again as it begins; and the last one. Where
-- messages go on, only the last: each call waits for the claims of others, which come many times a second there.
-- is_again: a message may have named it before, so an id that no message had is needed.
-- tasks_per_message: what the caller knows of how long its tasks last decides (next_message_size); null: nothing.
-- Fence: the stage is open, and its job is not paused; it has no limits, which take_limited_tasks is for. Locks: the
-- window's, then task rows by id, then the stage row.
create or replace function "app".take_next_tasks(
  p_job_id text, p_run integer, p_stage integer, p_mean_seconds double precision
) returns table (
  job_id text, run integer, stage integer, task_id text, queue text, attempt integer, job_type text,
  correlation_id text, tasks_per_message integer, mark_each integer, is_again boolean
)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
#variable_conflict use_column
declare
  v_now timestamptz := "app".clock();
  v_window record;
  v_look record;
  v_again record;
  v_next record;
  v_before integer;
  v_per_message integer;
  v_max_parallel integer;
begin
  perform "app".lock_window(p_job_id, p_run, p_stage);
  select s.window_after, s.window_from, s.window_size, s.window_open, s.window_at, s.settings, j.job_type,
    (coalesce((s.settings ->> 'tasks_per_message')::integer, 1) = 1 and s.settings ->> 'max_parallel' is null and s.settings ->> 'limits' is null) as goes_on, j.correlation_id,
    "app".window_weight(coalesce(j.priority, j.definition ->> 'priority')) as weight,
    (j.definition -> 'stages' -> (s.stage - 1) ->> 'tasks_per_message')::integer as declared
  into v_window
  from "app".stages s join "app".jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.window_after is not null
    and (j.status = 'processing' and j.run = s.run and s.status = 'processing') and j.paused_at is null and s.settings ->> 'limits' is null;
  if not found or not "app".has_tasks_in_line(p_job_id, p_run, p_stage, v_window.window_from, v_window.window_after) then
    return;
  end if;
  v_max_parallel := (v_window.settings ->> 'max_parallel')::integer;
  if v_max_parallel is null then
    perform set_config('synchronous_commit', 'off', true);
  end if;
  v_before := coalesce((v_window.settings ->> 'tasks_per_message')::integer, 1);
  v_per_message := least("app".next_message_size(v_before, coalesce(v_window.declared, 100),
    p_mean_seconds), v_max_parallel);
  select w.room, w.size, w.open_count, w.back_count, w.first_id into v_look
  from "app".look_at_window(p_job_id, p_run, p_stage, v_window.window_from, v_window.window_after,
    -- As many messages as before, whatever their size is now.
    v_window.window_size * v_per_message / v_before, v_window.window_open, v_window.window_at, v_per_message,
    v_window.weight, v_max_parallel, v_now) w;
  if v_look.room <= 0 then
    return;
  end if;
  select array_agg(b.task_id) as ids, array_agg(b.queue) as queues, array_agg(b.attempt) as attempts,
    array_agg(b.place) as places, count(*)::integer as count
  into v_again
  from (
    select t.task_id, t.queue, t.attempt, t.ctid as place from "app".tasks t
    where v_look.back_count > 0
      and t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ('pending', 'queued', 'processing', 'pending_retry')
      and t.task_id >= v_window.window_from and t.task_id <= v_window.window_after and (((t.status = 'pending' and (t.due_at is null or t.due_at <= v_now) and t.parked_at is null) and t.announced_at is not null) or (t.status = 'pending_retry' and t.due_at <= v_now and t.announced_at is null and t.parked_at is null and t.held_for is null and t.waiting_for is null))
    order by t.task_id limit v_look.room for update
  ) b;
  if v_window.goes_on then
    select array_agg(n.task_id) as ids, array_agg(n.queue) as queues, array_agg(n.attempt) as attempts,
      count(*)::integer as count
    into v_next
    from "app".lock_tasks_in_line(
      p_job_id, p_run, p_stage, v_window.window_after, v_look.room - v_again.count) n;
  else
    select array_agg(n.task_id) as ids, array_agg(n.queue) as queues, array_agg(n.attempt) as attempts,
      count(*)::integer as count
    into v_next
    from "app".tasks_in_line(p_job_id, p_run, p_stage, v_window.window_after, v_look.room - v_again.count) n;
  end if;
  if v_again.count + v_next.count = 0 then
    return;
  end if;
  if v_again.count > 0 then
    update "app".tasks t set status = 'pending', due_at = null, announced_at = null
    where t.ctid = any (v_again.places);
  end if;
  -- From where it was: between that and the first of the next there may be tasks that run without a message, and which
  -- find_unannounced_tasks has to find if their process dies.
  update "app".stages s
  set window_after = coalesce(v_next.ids[v_next.count], s.window_after),
      window_from = coalesce(v_look.first_id, v_window.window_after), window_size = v_look.size, window_at = v_now,
      window_open = v_look.open_count + v_again.count + v_next.count,
      settings = s.settings || jsonb_build_object('tasks_per_message', v_per_message)
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  return query
  select p_job_id, p_run, p_stage, t.task_id, t.queue, t.attempt, v_window.job_type, v_window.correlation_id,
    v_per_message,
    case when v_max_parallel is not null then 1 when v_window.goes_on then v_look.size
      else greatest(v_look.size / v_per_message / 2, 1) end,
    t.place <= v_again.count
  from unnest(v_again.ids || v_next.ids, v_again.queues || v_next.queues, v_again.attempts || v_next.attempts)
    with ordinality as t(task_id, queue, attempt, place);
end $$;

-- How many tasks the next messages of a stage name: p_most, which its author declares, if their work lasts no more than
-- 0.5 seconds; else as many as last 0.1. At most ten times as many as before, since quick tasks
-- end first; what differs by less than a half stays.
create or replace function "app".next_message_size(p_size integer, p_most integer, p_mean_seconds double precision)
returns integer
language sql immutable as $$
  select case when p_mean_seconds is null then p_size
    when w.size * 2 > p_size * 3 or w.size * 3 < p_size * 2 then w.size else p_size end
  from (
    select least(p_most, p_size * 10, case when p_mean_seconds * p_most <= 0.5 then p_most
      else greatest(floor(0.1 / p_mean_seconds), 1) end)::integer as size
  ) w
$$;

-- Releases claimed tasks as give_back_tasks does, and those of a stage that has a window into its line: they are
-- pending, and have no message until somebody takes them again. Those of a stage with limits wait for their turn at these.
-- Returns which were released, and whether they are in line; else the caller sends messages for them. p_mean_seconds is
-- for next_message_size, as in take_next_tasks.
-- In the line they are known by a time in announced_at, since their ids are not above window_after.
-- Fence: the lease. Locks: the window's, those of the stage's limits, then those of give_back_tasks and the stage row.
-- Raises CM001 as give_back_tasks does.
create or replace function "app".release_tasks_into_line(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_started boolean,
  p_mean_seconds double precision
) returns table (released_ids text[], is_in_line boolean)
language plpgsql set enable_seqscan = off as $$
declare
  v_stage record;
begin
  perform "app".lock_window(p_job_id, p_run, p_stage);
  select s.window_after, "app".limit_names(s.settings) as limits into v_stage
  from "app".stages s where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  if v_stage.limits is not null then
    perform "app".lock_limits(v_stage.limits);
  end if;
  released_ids := "app".give_back_tasks(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_started, p_started,
    case when v_stage.limits is null then v_stage.window_after end);
  is_in_line := v_stage.window_after is not null and cardinality(released_ids) > 0;
  if is_in_line and v_stage.limits is not null then
    perform "app".hold_back_tasks(p_job_id, p_run, p_stage, released_ids,
      "app".places_of_tasks(p_job_id, p_run, released_ids), v_stage.limits[1]);
  end if;
  if is_in_line then
    perform "app".note_back_in_line(p_job_id, p_run, p_stage, cardinality(released_ids), p_mean_seconds);
  end if;
  return next;
end $$;

-- Puts tasks that a message names, and that nobody has claimed, back into their stage's line: the message has work for
-- longer than it should. Returns which. A claim of them and its release would be two updates of each.
-- p_mean_seconds is for next_message_size, as in take_next_tasks.
-- Fence: the stage is open, and has no limits; the tasks wait, their job is not paused, and its window has come to them.
-- Locks: the window's, task rows by id, then the stage row.
create or replace function "app".return_tasks_to_line(
  p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_mean_seconds double precision
) returns text[]
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
  v_window_after text;
  v_ids text[];
  v_places tid[];
begin
  perform "app".lock_window(p_job_id, p_run, p_stage);
  select s.window_after into v_window_after
  from "app".stages s join "app".jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and (j.status = 'processing' and j.run = s.run and s.status = 'processing') and j.paused_at is null
    and s.settings ->> 'limits' is null;
  select coalesce(array_agg(named.id), array[]::text[]), array_agg(w.place) into v_ids, v_places
  from "app".ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
      and t.status in ('pending', 'queued') and t.parked_at is null and t.task_id <= v_window_after
    for update
  ) w;
  if cardinality(v_ids) > 0 then
    update "app".tasks t set status = 'pending', announced_at = v_now, due_at = null
    where t.ctid = any (v_places);
    perform "app".note_back_in_line(p_job_id, p_run, p_stage, cardinality(v_ids), p_mean_seconds);
  end if;
  return v_ids;
end $$;

-- Counts tasks out of a stage's window, and notes how many the next messages name. The caller has the window's lock.
create or replace function "app".note_back_in_line(
  p_job_id text, p_run integer, p_stage integer, p_count integer, p_mean_seconds double precision
) returns void
language plpgsql as $$
declare
  v_before integer;
  v_size integer;
begin
  select (s.settings ->> 'tasks_per_message')::integer into v_before
  from "app".stages s where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  v_size := coalesce("app".next_message_size(v_before, v_before, p_mean_seconds), 1);
  update "app".stages s
  set window_open = greatest(s.window_open - p_count, 0),
      window_size = s.window_size * v_size / coalesce(v_before, 1),
      settings = s.settings || jsonb_build_object('tasks_per_message', v_size)
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
end $$;

-- How long tasks of a stage took, by the first p_limit completed ones from p_from to p_to, in seconds; null if there are
-- none. Tasks of one message are claimed together and may run one after the other, so its time is divided by their
-- number. Messages that shared their claim are taken for one that is as large as each of them.
create or replace function "app".mean_task_seconds(
  p_job_id text, p_run integer, p_stage integer, p_from text, p_to text, p_per_message integer, p_limit integer
) returns double precision
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_sort = off
set enable_bitmapscan = off as $$
begin
  return (
    select (sum(m.seconds) / sum(least(m.tasks, p_per_message)))::double precision from (
      select extract(epoch from max(t.finished_at) - t.started_at) as seconds, count(*) as tasks from (
        select x.started_at, x.finished_at from "app".tasks x
        where x.job_id = p_job_id and x.run = p_run and x.stage = p_stage and x.status = 'completed'
          and x.task_id >= p_from and x.task_id <= p_to
        order by x.task_id limit p_limit
      ) t
      group by t.started_at
    ) m
  );
end $$;

-- The tasks of a stage after the one with this id that wait in line, in order.
-- Others after it run without a message, or wait for another attempt or for the janitor. Without sorts: a planner that
-- does not know how many are asked for would read them all and sort them.
create or replace function "app".tasks_in_line(
  p_job_id text, p_run integer, p_stage integer, p_after text, p_limit integer
) returns table (task_id text, queue text, attempt integer, status text)
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_sort = off
set enable_bitmapscan = off as $$
declare
  v_now timestamptz := "app".clock();
begin
  return query
  select t.task_id, t.queue, t.attempt, t.status from "app".tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ('pending', 'queued', 'processing', 'pending_retry')
    and t.task_id > p_after and (t.status = 'pending' and (t.due_at is null or t.due_at <= v_now) and t.parked_at is null)
  order by t.task_id limit p_limit;
end $$;

-- The same, each as it is when nobody else has it, and locked. Locks: task rows by id.
create or replace function "app".lock_tasks_in_line(
  p_job_id text, p_run integer, p_stage integer, p_after text, p_limit integer
) returns table (task_id text, queue text, attempt integer)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_sort = off
set enable_bitmapscan = off as $$
declare
  v_now timestamptz := "app".clock();
begin
  return query
  select t.task_id, t.queue, t.attempt from "app".tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ('pending', 'queued', 'processing', 'pending_retry')
    and t.task_id > p_after and (t.status = 'pending' and (t.due_at is null or t.due_at <= v_now) and t.parked_at is null)
  order by t.task_id limit p_limit for update;
end $$;

-- Whether a stage has tasks that wait in line: after its window, or back from it.
create or replace function "app".has_tasks_in_line(
  p_job_id text, p_run integer, p_stage integer, p_from text, p_after text
) returns boolean
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := "app".clock();
begin
  return exists (select from "app".tasks_in_line(p_job_id, p_run, p_stage, p_after, 1)) or exists (
    select from "app".tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ('pending', 'queued', 'processing', 'pending_retry')
      and t.task_id >= p_from and t.task_id <= p_after and (((t.status = 'pending' and (t.due_at is null or t.due_at <= v_now) and t.parked_at is null) and t.announced_at is not null) or (t.status = 'pending_retry' and t.due_at <= v_now and t.announced_at is null and t.parked_at is null and t.held_for is null and t.waiting_for is null))
  );
end $$;

-- What is open in a window, and the room that is left in it: 0 if it is better used later.
-- What went back into the line is counted apart. first_id: the first of both. size: the mean of what it was and of what
-- window_size returns now, so that one slow or quick moment changes little; less than 20 ms after the last take it stays.
-- A stage's share of a queue is its share of the messages there, and the size of its window grows with the root of what it
-- gets. So a weight counts as its root, but for the first window, whose size is not measured.
create or replace function "app".look_at_window(
  p_job_id text, p_run integer, p_stage integer, p_from text, p_after text, p_size integer, p_open integer,
  p_at timestamptz, p_per_message integer, p_weight double precision, p_max_parallel integer, p_now timestamptz
) returns table (room integer, size integer, open_count integer, back_count integer, first_id text)
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := p_now;
  v_seen record;
  v_seconds double precision := extract(epoch from p_now - p_at);
  v_weight double precision := p_weight;
  v_wanted integer;
  v_waiting integer;
begin
  select count(*)::integer as open, count(*) filter (where t.status = 'processing')::integer as running,
    count(*) filter (where t.status = 'pending_retry' and t.due_at > p_now)::integer as later, min(t.task_id) as first,
    count(*) filter (where (((t.status = 'pending' and (t.due_at is null or t.due_at <= v_now) and t.parked_at is null) and t.announced_at is not null) or (t.status = 'pending_retry' and t.due_at <= v_now and t.announced_at is null and t.parked_at is null and t.held_for is null and t.waiting_for is null)))::integer as back
  into v_seen
  from "app".tasks t
  where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage and t.status in ('pending', 'queued', 'processing', 'pending_retry')
    and t.task_id >= p_from and t.task_id <= p_after;
  open_count := v_seen.open - v_seen.back;
  back_count := v_seen.back;
  first_id := v_seen.first;
  size := p_size;
  if p_at is not null then
    v_weight := sqrt(p_weight);
  end if;
  if v_seconds >= 0.02 then
    size := greatest(
      (p_size + "app".window_size(v_seen.running, greatest(p_open - open_count, 0) / v_seconds, p_per_message)) / 2,
      p_per_message);
  end if;
  v_wanted := greatest(ceil(size * v_weight / p_per_message)::integer, 1) * p_per_message;
  v_waiting := open_count - v_seen.later - v_seen.running;
  room := v_wanted - v_waiting;
  if p_max_parallel is not null then
    room := least(room, p_max_parallel - open_count);
  elsif room <= 0 or (v_waiting > 0 and room < greatest(v_wanted / 4, p_per_message)) then
    room := 0;
  else
    -- Whole messages.
    room := greatest(room / p_per_message, 1) * p_per_message;
  end if;
  return next;
end $$;

-- Finds stages whose window nobody has looked after for p_idle_seconds, though tasks wait in line: the process
-- that should have died, is of a release that knows no windows, or runs tasks that last long.
-- Those of p_planned_seconds ago whose first tasks were not taken, too. Those with limits wait for their turn instead. It looks
-- at up to p_limit jobs, in random order.
create or replace function "app".find_idle_windows(
  p_limit integer, p_planned_seconds double precision, p_idle_seconds double precision
) returns table (job_id text, run integer, stage integer)
language sql volatile set enable_seqscan = off as $$
  select w.job_id, w.run, w.stage from (
    select s.job_id, s.run, s.stage, s.window_from, s.window_after
    from "app".jobs j
    join "app".stages s on s.job_id = j.job_id and s.run = j.run and s.stage = j.stage
    where j.status = 'processing' and j.paused_at is null and s.status = 'processing' and s.window_after is not null
      and s.settings ->> 'limits' is null
      and coalesce(s.window_at + p_idle_seconds * interval '1 second',
        s.planned_at + p_planned_seconds * interval '1 second') < "app".clock()
    order by random() limit p_limit
  ) w
  where "app".has_tasks_in_line(w.job_id, w.run, w.stage, w.window_from, w.window_after)
$$;

comment on function "app"."first_window"(p_settings jsonb) is 'How many tasks a stage announces at first, where nothing is known of how long they last.';
comment on function "app"."open_window"(p_job_id text, p_run integer, p_stage integer, p_tasks integer) is 'Opens the window of a stage, none of whose tasks is announced: nothing is taken yet.';
comment on function "app"."window_size"(p_running integer, p_rate double precision, p_per_message integer) is 'How many tasks should wait in the queue beside those that run, for a stage with this many running, and this many ending per second.';
comment on function "app"."window_weight"(p_priority text) is 'A job''s weight among others: how much more it gets of what they share.';
comment on function "app"."take_next_tasks"(p_job_id text, p_run integer, p_stage integer, p_mean_seconds double precision) is 'Takes the next tasks of a stage into its window, without a lease, and returns them; the caller sends their messages.';
comment on function "app"."next_message_size"(p_size integer, p_most integer, p_mean_seconds double precision) is 'How many tasks the next messages of a stage name: p_most, which its author declares, if their work lasts no more than {whole_seconds} seconds; else as many as last {message_seconds}.';
comment on function "app"."release_tasks_into_line"(p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_started boolean, p_mean_seconds double precision) is 'Releases claimed tasks as give_back_tasks does, and those of a stage that has a window into its line: they are pending, and have no message until somebody takes them again.';
comment on function "app"."return_tasks_to_line"(p_job_id text, p_run integer, p_stage integer, p_task_ids text[], p_mean_seconds double precision) is 'Puts tasks that a message names, and that nobody has claimed, back into their stage''s line: the message has work for longer than it should.';
comment on function "app"."note_back_in_line"(p_job_id text, p_run integer, p_stage integer, p_count integer, p_mean_seconds double precision) is 'Counts tasks out of a stage''s window, and notes how many the next messages name.';
comment on function "app"."mean_task_seconds"(p_job_id text, p_run integer, p_stage integer, p_from text, p_to text, p_per_message integer, p_limit integer) is 'How long tasks of a stage took, by the first p_limit completed ones from p_from to p_to, in seconds; null if there are none.';
comment on function "app"."tasks_in_line"(p_job_id text, p_run integer, p_stage integer, p_after text, p_limit integer) is 'The tasks of a stage after the one with this id that wait in line, in order.';
comment on function "app"."lock_tasks_in_line"(p_job_id text, p_run integer, p_stage integer, p_after text, p_limit integer) is 'The same, each as it is when nobody else has it, and locked.';
comment on function "app"."has_tasks_in_line"(p_job_id text, p_run integer, p_stage integer, p_from text, p_after text) is 'Whether a stage has tasks that wait in line: after its window, or back from it.';
comment on function "app"."look_at_window"(p_job_id text, p_run integer, p_stage integer, p_from text, p_after text, p_size integer, p_open integer, p_at timestamptz, p_per_message integer, p_weight double precision, p_max_parallel integer, p_now timestamptz) is 'What is open in a window, and the room that is left in it: 0 if it is better used later.';
comment on function "app"."find_idle_windows"(p_limit integer, p_planned_seconds double precision, p_idle_seconds double precision) is 'Finds stages whose window nobody has looked after for p_idle_seconds, though tasks wait in line: the process that should have died, is of a release that knows no windows, or runs tasks that last long.';

create or replace function "app"."lacks_jobs_transition"(p_from text, p_to text) returns boolean
language plpgsql immutable as $$
begin
  return p_from <> p_to and p_from || '>' || p_to not in (
    'queued>cancelled',
    'queued>failed',
    'queued>processing',
    'processing>cancelled',
    'processing>cancelling',
    'processing>completed',
    'processing>completed_with_errors',
    'processing>failed',
    'processing>finalizing',
    'processing>queued',
    'cancelling>cancelled',
    'finalizing>cancelled',
    'finalizing>completed',
    'finalizing>completed_with_errors',
    'finalizing>failed'
  );
end $$;
comment on function "app"."lacks_jobs_transition"(p_from text, p_to text) is 'Whether a change of status is none of those that the table of transitions allows.';

create or replace function "app"."guard_jobs_transition"() returns trigger
language plpgsql as $$
begin
  raise exception 'jobs row %: no transition from % to %', old, old.status, new.status using errcode = 'CM003';
end $$;
comment on function "app"."guard_jobs_transition"() is 'Refuses a change of status with CM003.';

create or replace function "app"."lacks_jobs_rerun"(p_from text, p_to text) returns boolean
language plpgsql immutable as $$
begin
  return p_from <> p_to and p_from || '>' || p_to not in (
    'completed>queued',
    'completed_with_errors>processing',
    'completed_with_errors>queued',
    'failed>finalizing',
    'failed>processing',
    'failed>queued',
    'cancelled>finalizing',
    'cancelled>processing',
    'cancelled>queued'
  );
end $$;
comment on function "app"."lacks_jobs_rerun"(p_from text, p_to text) is 'Whether a change of status is none of those that the table of transitions allows.';

create or replace trigger transition_guard after update of status on "app"."jobs" for each row
when ("app"."lacks_jobs_transition"(old.status, new.status) and (new.run <> old.run + 1 or "app"."lacks_jobs_rerun"(old.status, new.status)))
execute function "app"."guard_jobs_transition"();

create or replace function "app"."lacks_stages_transition"(p_from text, p_to text) returns boolean
language plpgsql immutable as $$
begin
  return p_from <> p_to and p_from || '>' || p_to not in (
    'queued>cancelled',
    'queued>completed',
    'queued>failed',
    'queued>processing',
    'processing>cancelled',
    'processing>completed',
    'processing>completed_with_errors',
    'processing>failed'
  );
end $$;
comment on function "app"."lacks_stages_transition"(p_from text, p_to text) is 'Whether a change of status is none of those that the table of transitions allows.';

create or replace function "app"."guard_stages_transition"() returns trigger
language plpgsql as $$
begin
  raise exception 'stages row %: no transition from % to %', old, old.status, new.status using errcode = 'CM003';
end $$;
comment on function "app"."guard_stages_transition"() is 'Refuses a change of status with CM003.';

create or replace trigger transition_guard after update of status on "app"."stages" for each row
when ("app"."lacks_stages_transition"(old.status, new.status))
execute function "app"."guard_stages_transition"();

create or replace function "app"."lacks_tasks_transition"(p_from text, p_to text) returns boolean
language plpgsql immutable as $$
begin
  return p_from <> p_to and p_from || '>' || p_to not in (
    'pending>cancelled',
    'pending>failed',
    'pending>pending_retry',
    'pending>processing',
    'pending>queued',
    'queued>cancelled',
    'queued>failed',
    'queued>pending',
    'queued>processing',
    'processing>cancelled',
    'processing>completed',
    'processing>failed',
    'processing>pending',
    'processing>pending_retry',
    'pending_retry>cancelled',
    'pending_retry>failed',
    'pending_retry>pending',
    'pending_retry>processing'
  );
end $$;
comment on function "app"."lacks_tasks_transition"(p_from text, p_to text) is 'Whether a change of status is none of those that the table of transitions allows.';

create or replace function "app"."guard_tasks_transition"() returns trigger
language plpgsql as $$
begin
  raise exception 'tasks row %: no transition from % to %', old, old.status, new.status using errcode = 'CM003';
end $$;
comment on function "app"."guard_tasks_transition"() is 'Refuses a change of status with CM003.';

create or replace trigger transition_guard after update of status on "app"."tasks" for each row
when ("app"."lacks_tasks_transition"(old.status, new.status))
execute function "app"."guard_tasks_transition"();

comment on table "app"."jobs" is 'One submitted job. Its current run is in this row, the runs before it are in `job_runs`.';
comment on column "app"."jobs"."job_id" is 'SHA-256 over job type and parameters, in hexadecimal; for a forced job over its nonce, too.';
comment on column "app"."jobs"."job_type" is 'Name of the job class that plans its stages and makes its summary.';
comment on column "app"."jobs"."status" is 'State of the current run: queued (its stage waits to be planned), processing (tasks of its stage run), cancelling (some tasks have not stopped yet), finalizing (its summary is to be made), or how it ended. Moved by the transaction that ends the last task of a stage, by the planner, and by operators.';
comment on column "app"."jobs"."run" is 'Number of the current run, from 1. Each rerun raises it by 1.';
comment on column "app"."jobs"."stage" is 'The stage where the current run is, from 1. Raised by the transaction that ends a stage.';
comment on column "app"."jobs"."total_stages" is 'Number of stages in its definition.';
comment on column "app"."jobs"."parameters" is 'Validated parameters of the current run. Only a rerun replaces them.';
comment on column "app"."jobs"."definition" is 'Snapshot of the job class at submission: stages with their policies, and timeout_seconds. A new release of the code does not change it; a rerun may replace it.';
comment on column "app"."jobs"."correlation_id" is 'Names the job in its messages and log lines. Given by the submitter, or made.';
comment on column "app"."jobs"."result" is 'The job''s own summary, as its job class made it; null until it has completed.';
comment on column "app"."jobs"."error" is 'Why it failed or is being cancelled or was: type, message, retryable, attempt, traceback, at, and what goes with the type. Null in any other state.';
comment on column "app"."jobs"."attempt" is 'Failed attempts at the current step, which is to plan the stage or to make the summary. 0 again with each step.';
comment on column "app"."jobs"."due_at" is 'The step is not announced before this time: after a failed attempt, after a dead letter, or while a janitor sends its message. Null: at once.';
comment on column "app"."jobs"."announced_at" is 'When the queue confirmed the message for the current step. Null: none is confirmed, so the janitor sends one.';
comment on column "app"."jobs"."created_at" is 'When it was submitted.';
comment on column "app"."jobs"."updated_at" is 'When this row last changed state. The janitor measures its grace from here.';
comment on column "app"."jobs"."finished_at" is 'When the current run ended. Null while it is open. Retention counts from here.';
comment on column "app"."jobs"."nonce" is 'Makes the id of a forced job differ from others with its parameters; else null.';
comment on column "app"."jobs"."forced_from" is 'For a forced job, the id that its parameters have without the nonce; else null.';
comment on column "app"."jobs"."deadline_at" is 'By when the current run must have ended, from timeout_seconds of its definition; a pause moves it. The janitor fails the job as JobTimedOut after it. Null: no deadline.';
comment on column "app"."jobs"."paused_at" is 'Since when it is paused: nothing is claimed, planned or finalized. Set by pause; cleared by resume, cancel and the job''s end.';
comment on column "app"."jobs"."cancel_deadline_at" is 'When a job that is cancelling ends whether its tasks have stopped or not: request plus grace. The janitor then revokes their leases.';
comment on column "app"."jobs"."waiting_for" is 'What an app did not know that was to take the job''s step: kind, name, by, since, seen_at, times, waited_seconds, patience_seconds, due_at, and `at`. It counts only while run, stage, status and attempt equal `at`; nobody clears it.';
comment on column "app"."jobs"."run_started_at" is 'When the current run began. Null in the first run, which began at created_at.';
comment on column "app"."jobs"."tags" is 'Short texts by name, given by the submitter, to find it by. Null: it has none.';
comment on column "app"."jobs"."start_at" is 'The current run does not begin before this time, as its submitter wished. Null: at once.';
comment on column "app"."jobs"."hold" is 'Legal hold: reason, actor, at. While it is set, neither retention nor people delete the job.';
comment on column "app"."jobs"."traceparent" is 'The trace of its submission, as W3C writes it. Null where no trace was recorded when it came.';
comment on column "app"."jobs"."priority" is 'Its weight among others, as its submitter or an operator wished. Null: that of its definition.';
comment on column "app"."jobs"."stall_noted_at" is 'When webhooks last learned that it does not move. Null: never.';
comment on column "app"."jobs"."step_lease" is 'The process that takes the job''s step, if that lasts or was begun before: owner, since, expires_at, is_alone, and `at`. Its heartbeats renew it. `interruptions` counts the processes that ended over the step, `alone` those of them that did nothing else, `lost` is the last; `has_ended`: nobody has it now. It counts only while run, stage, status and attempt equal `at`.';

comment on table "app"."job_runs" is 'A run of a job as it ended, written when a rerun followed it; the current run is in the job''s row.';
comment on column "app"."job_runs"."job_id" is 'The job.';
comment on column "app"."job_runs"."run" is 'Number of the run, from 1.';
comment on column "app"."job_runs"."status" is 'How the run ended.';
comment on column "app"."job_runs"."parameters" is 'Its parameters.';
comment on column "app"."job_runs"."definition" is 'The snapshot of the job class that it ran with.';
comment on column "app"."job_runs"."result" is 'Its summary; null unless it completed.';
comment on column "app"."job_runs"."error" is 'Why it failed or was cancelled, as in jobs.error; else null.';
comment on column "app"."job_runs"."finished_at" is 'When it ended.';
comment on column "app"."job_runs"."followed_at" is 'When the rerun after it began, which wrote this row.';

comment on table "app"."stages" is 'One stage in one run of a job. It is written when the run comes to the stage.';
comment on column "app"."stages"."job_id" is 'The job.';
comment on column "app"."stages"."run" is 'The run of the job.';
comment on column "app"."stages"."stage" is 'Number of the stage, from 1.';
comment on column "app"."stages"."status" is 'queued (its tasks are not all inserted, so it cannot end), processing (they are), or how it ended. Moved by the planner, and by the transaction that ends its last task.';
comment on column "app"."stages"."settings" is 'The stage as its job''s definition has it: name, parallelism, lease_seconds, max_interruptions, retry, failure, timeouts. tasks_per_message is the size of its messages now, max_parallel what an operator set last.';
comment on column "app"."stages"."expected_count" is 'Number of its tasks, sealed by the planner with their insert. Null until then.';
comment on column "app"."stages"."failed_count" is 'Number of its tasks that have failed, counted under the stage''s exclusive lock.';
comment on column "app"."stages"."created_at" is 'When the run came to this stage. Its deadlines count from here.';
comment on column "app"."stages"."planned_at" is 'When its tasks were inserted. Null until then.';
comment on column "app"."stages"."finished_at" is 'When it ended. Null while it is open.';
comment on column "app"."stages"."is_unwatched" is 'True: other transactions held every open task when one was to be watched, so each completion takes the stage''s lock exclusively, until one finds a task to watch. See docs/explanation/locking.md.';
comment on column "app"."stages"."deadline_at" is 'By when it must have ended, from timeout_seconds of its settings; a pause moves it. The janitor fails the job as StageTimedOut after it. Null: no deadline.';
comment on column "app"."stages"."queue_deadline_at" is 'By when its tasks must have begun, from queue_timeout_seconds of its settings; a pause moves it. The janitor fails tasks without an attempt as QueueTimeExpired after it. Null: no deadline.';
comment on column "app"."stages"."from_run" is 'The run in which it ran, where a rerun kept it or a part of its tasks; else null.';
comment on column "app"."stages"."window_after" is 'Its tasks are announced in windows: those with an id up to this one were taken so far, the others wait in line. Empty: none was taken yet. Null: it is announced as a whole. docs/explanation/delivery.md has more.';
comment on column "app"."stages"."window_from" is 'The first of the tasks that were open in its window when some were last taken.';
comment on column "app"."stages"."window_size" is 'How many of its tasks are to wait in the queue, beside those that run; set anew by each take.';
comment on column "app"."stages"."window_open" is 'How many tasks were open in its window after the last take.';
comment on column "app"."stages"."window_at" is 'When tasks were last taken into its window. Null until the first are.';

comment on table "app"."tasks" is 'One unit of work in one run of a job, retried alone.';
comment on column "app"."tasks"."job_id" is 'The job.';
comment on column "app"."tasks"."run" is 'The run of the job.';
comment on column "app"."tasks"."task_id" is 'Unique within the run. Tasks of a stage are locked in its order.';
comment on column "app"."tasks"."stage" is 'The stage that it belongs to, from 1.';
comment on column "app"."tasks"."task_index" is 'Its place in the stage, from 0: the order in which results are read.';
comment on column "app"."tasks"."task_type" is 'Name of the handler that runs it.';
comment on column "app"."tasks"."queue" is 'Logical name of the queue that its messages go to.';
comment on column "app"."tasks"."name" is 'What people call it, such as a file name; null if it has none.';
comment on column "app"."tasks"."parameters" is 'What its handler gets, as the planner wrote it.';
comment on column "app"."tasks"."status" is 'pending (no message for it is confirmed), queued (one is), processing (an attempt has a lease), pending_retry (to be retried at due_at), or how it ended. Moved by claims and by the attempt that has the lease; by the janitor when that lease has run out.';
comment on column "app"."tasks"."attempt" is 'Attempts so far, the running one included; 0 until the first claim. Less interruptions, it is what counts against retry.max_attempts of the stage.';
comment on column "app"."tasks"."interruptions" is 'Attempts that ended without an outcome: crash, lost lease, drained host. They spend no retry. Beyond max_interruptions of the stage the task fails as InterruptedTooOften.';
comment on column "app"."tasks"."lease_id" is 'The running attempt''s random lease. Only its holder may renew, complete, fail or reschedule the task. Null unless the task is processing.';
comment on column "app"."tasks"."lease_expires_at" is 'When the lease runs out unless a heartbeat extends it by lease_seconds of the stage. The janitor takes the task back after it. Null unless the task is processing.';
comment on column "app"."tasks"."lease_owner" is 'Name of the process that has, or last had, the lease.';
comment on column "app"."tasks"."due_at" is 'The task is not announced before this time, and not claimed before it while it is pending_retry: after a failed attempt, after a dead letter, or while a janitor sends its message. Null: at once.';
comment on column "app"."tasks"."announced_at" is 'When a queue confirmed its latest message, or a janitor found that message lost and sent another. Null: none is confirmed for what it waits for, so the janitor sends one. Of a pending task: when a process released it into its stage''s line, where it waits for its turn.';
comment on column "app"."tasks"."progress" is 'What its handler last reported, written with a heartbeat; null if it reports nothing.';
comment on column "app"."tasks"."result" is 'What its handler returned; null until it has completed.';
comment on column "app"."tasks"."error" is 'Why its latest failed attempt failed: type, message, retryable, attempt (its number, interrupted ones counted, as in the column), traceback, at, and log: the last lines that the attempt logged and printed, if there are any. Cleared when it completes.';
comment on column "app"."tasks"."created_at" is 'When it was planned, or when a rerun wrote it anew.';
comment on column "app"."tasks"."started_at" is 'When its latest attempt was claimed; task_timeout_seconds counts from here.';
comment on column "app"."tasks"."finished_at" is 'When it completed, failed or was cancelled. Null while it is open.';
comment on column "app"."tasks"."is_watched" is 'True for one open task of a running stage: the transaction that ends it passes the watch on, or decides that the stage has ended. The end of any other task decides nothing. See docs/explanation/locking.md.';
comment on column "app"."tasks"."timed_out_at" is 'When a heartbeat of the running attempt was first refused, since task_timeout_seconds of the stage were over. Its lease then runs out. Cleared by the next claim.';
comment on column "app"."tasks"."parked_at" is 'It needs another message, since its own came while the job was paused, or since a rerun wrote it. A time in the future: one sender holds it until then. Cleared when the message is confirmed, or by a claim.';
comment on column "app"."tasks"."from_run" is 'The run in which it ran, where a rerun kept it; else null.';
comment on column "app"."tasks"."is_windowed" is 'True: its stage is announced in windows. While it is pending and its id is above window_after of the stage, or it has been released into the line, it waits in line, and no message is sent for it.';
comment on column "app"."tasks"."waiting_for" is 'What the app that claimed it did not know: kind, name, by, since, seen_at, times, waited_seconds, patience_seconds, and `at`. It counts only while attempt equals that of `at`.';
comment on column "app"."tasks"."is_limited" is 'True: its stage has limits, so that a claim needs a place in each. Written when it is planned.';
comment on column "app"."tasks"."held_for" is 'The limit that it waits for since its message came, or whose rate its message is scheduled for. Written by its claim and by who takes the next tasks; cleared when it is announced again or claimed.';

comment on table "app"."idempotency_keys" is 'A submission''s own key and the job that it got; kept as long as that job.';
comment on column "app"."idempotency_keys"."job_id" is 'The job that the first submission with this key got.';
comment on column "app"."idempotency_keys"."idempotency_key" is 'The key, as the submitter gave it.';
comment on column "app"."idempotency_keys"."payload_hash" is 'SHA-256 over the submission that it came with. A second one must have the same.';
comment on column "app"."idempotency_keys"."created_at" is 'When the key first came.';

comment on table "app"."job_events" is 'One line of a job''s timeline. A task''s plain success has none: its own row shows it.';
comment on column "app"."job_events"."job_id" is 'The job.';
comment on column "app"."job_events"."event_id" is 'Identity; within a job, the order in which events were written.';
comment on column "app"."job_events"."run" is 'The run of the job that it happened in.';
comment on column "app"."job_events"."stage" is 'The stage that it concerns; null for the job as a whole.';
comment on column "app"."job_events"."task_id" is 'The task that it concerns; null for several, or for none.';
comment on column "app"."job_events"."event" is 'What happened, such as stage_completed or task_interrupted.';
comment on column "app"."job_events"."detail" is 'What goes with this event, such as an error, a reason, an actor or delay_seconds.';
comment on column "app"."job_events"."at" is 'When it happened, by the database''s clock.';

comment on table "app"."audit_log" is 'What somebody did to a job or to many. It outlives the job.';
comment on column "app"."audit_log"."audit_id" is 'Identity; the order in which rows were written.';
comment on column "app"."audit_log"."job_id" is 'The job; empty for an action on many.';
comment on column "app"."audit_log"."action" is 'What was done: one of `AuditAction`, or another one of a newer release.';
comment on column "app"."audit_log"."actor" is 'The person or app that did it; null where nobody vouches for a name.';
comment on column "app"."audit_log"."reason" is 'Why, as the actor wrote it.';
comment on column "app"."audit_log"."detail" is 'What goes with the action, such as from and to.';
comment on column "app"."audit_log"."at" is 'When, by the database''s clock.';

comment on table "app"."dead_letters" is 'One message that its queue gave up, kept with what it was about.';
comment on column "app"."dead_letters"."job_id" is 'The job that it names; empty where none can be read.';
comment on column "app"."dead_letters"."dead_letter_id" is 'Identity, in the order of arrival.';
comment on column "app"."dead_letters"."queue" is 'Logical name of the queue that gave it up.';
comment on column "app"."dead_letters"."message_id" is 'The message''s own id; with sequence_number and enqueued_at it is unique.';
comment on column "app"."dead_letters"."sequence_number" is 'The broker''s number of the message in its dead-letter queue.';
comment on column "app"."dead_letters"."enqueued_at" is 'When it came into the dead-letter queue, by the broker''s clock.';
comment on column "app"."dead_letters"."kind" is 'What it was about: task, job, stage_complete (rows, which get another message), submission (a job''s parameters, which nothing else holds), or unreadable.';
comment on column "app"."dead_letters"."run" is 'The run that it names; null where none can be read.';
comment on column "app"."dead_letters"."stage" is 'The stage that it names; null where none can be read.';
comment on column "app"."dead_letters"."task_id" is 'The first of task_ids, or empty: finds earlier dead letters of the same task.';
comment on column "app"."dead_letters"."task_ids" is 'The tasks that it names; empty if it names none.';
comment on column "app"."dead_letters"."reason" is 'Why its queue gave it up, in the broker''s or the app''s word.';
comment on column "app"."dead_letters"."description" is 'The same in more words, such as the last error.';
comment on column "app"."dead_letters"."fingerprint" is '16 hexadecimal digits over reason and description without ids, numbers and paths: groups letters.';
comment on column "app"."dead_letters"."delivery_count" is 'How often it was delivered, its delivery to the function that wrote this row included.';
comment on column "app"."dead_letters"."correlation_id" is 'The correlation id that it carried; null if none.';
comment on column "app"."dead_letters"."body" is 'Its body as text, cut off where body_size is beyond what is kept.';
comment on column "app"."dead_letters"."body_size" is 'Size of the whole body in bytes.';
comment on column "app"."dead_letters"."received_at" is 'When this row was written. Retention counts from here.';
comment on column "app"."dead_letters"."resolved_at" is 'When it was dealt with, by an operator or a redrive. Null: still open.';
comment on column "app"."dead_letters"."resolution" is 'redriven (sent again), obsolete (its rows had changed, so nothing was sent). Null: still open.';

comment on table "app"."schedules" is 'When jobs of a type are submitted by the clock.';
comment on column "app"."schedules"."name" is 'The schedule''s name.';
comment on column "app"."schedules"."job_type" is 'The type of its jobs.';
comment on column "app"."schedules"."parameters" is 'Parameters of its jobs; texts may have {tick} and {tick:%Y-%m-%d} in them.';
comment on column "app"."schedules"."cron" is 'Cron expression of five fields: minute, hour, day of month, month, day of week.';
comment on column "app"."schedules"."time_zone" is 'IANA name of the zone whose clock the expression is about.';
comment on column "app"."schedules"."catch_up" is 'What becomes of ticks that nobody acted on in time: skip, latest, all.';
comment on column "app"."schedules"."overlap" is 'What becomes of a tick while a job of it is open: skip, wait, allow.';
comment on column "app"."schedules"."starts_at" is 'No tick is before this time. Null: from now on.';
comment on column "app"."schedules"."ends_at" is 'No tick is after this time. Null: without end.';
comment on column "app"."schedules"."description" is 'A text for people.';
comment on column "app"."schedules"."revision" is 'Raised by each change, a pause or a resume included.';
comment on column "app"."schedules"."next_tick_at" is 'The first tick that nothing was decided about. Moved together with the rows of the ticks before it. Null: there is none any more.';
comment on column "app"."schedules"."paused_at" is 'While set, no tick is decided about; a resume skips those that passed.';
comment on column "app"."schedules"."last_change" is 'The latest change: action (created, replaced, paused, resumed), actor, reason, at.';
comment on column "app"."schedules"."created_at" is 'When it was first written.';
comment on column "app"."schedules"."updated_at" is 'When it was last changed, or paused, or resumed.';

comment on table "app"."schedule_ticks" is 'What became of one tick of a schedule, or of a range of ticks that were skipped together.';
comment on column "app"."schedule_ticks"."schedule" is 'The schedule.';
comment on column "app"."schedule_ticks"."tick_at" is 'The time that the expression names; of a manual one, when it was asked for.';
comment on column "app"."schedule_ticks"."until_at" is 'Of ticks that were skipped together: the last one. Null: it is one tick.';
comment on column "app"."schedule_ticks"."is_manual" is 'True: somebody asked for it (run now).';
comment on column "app"."schedule_ticks"."status" is 'waiting, due, submitted, skipped or failed.';
comment on column "app"."schedule_ticks"."reason" is 'Why it was skipped or failed, or is retried: a word such as overlap, missed, paused.';
comment on column "app"."schedule_ticks"."detail" is 'The same for people, such as the error''s message.';
comment on column "app"."schedule_ticks"."job_type" is 'The schedule''s job type when the tick was decided about.';
comment on column "app"."schedule_ticks"."parameters" is 'Parameters of its job, with the tick''s time in them.';
comment on column "app"."schedule_ticks"."submission_key" is 'Idempotency key of its submission: however often that is repeated, one job is made.';
comment on column "app"."schedule_ticks"."submitted_job_id" is 'Its job. Null: it has none.';
comment on column "app"."schedule_ticks"."attempt" is 'How often its submission was begun.';
comment on column "app"."schedule_ticks"."held_until" is 'While due: nobody else submits it before this time.';
comment on column "app"."schedule_ticks"."actor" is 'Of a manual tick: who asked for it.';
comment on column "app"."schedule_ticks"."created_at" is 'When it was decided about.';
comment on column "app"."schedule_ticks"."decided_at" is 'When it was submitted, skipped or failed. Null while it is open.';

comment on table "app"."webhooks" is 'An address that receives events. It has no secret: its own is made from the app''s key and `secret_seed`.';
comment on column "app"."webhooks"."name" is 'The webhook''s name.';
comment on column "app"."webhooks"."url" is 'Where deliveries go. Null: url_setting names it.';
comment on column "app"."webhooks"."url_setting" is 'The app setting that has the address, for one that is itself a secret.';
comment on column "app"."webhooks"."events" is 'The events that it receives.';
comment on column "app"."webhooks"."job_types" is 'Job types that it is about; a star is any characters. Empty: all.';
comment on column "app"."webhooks"."tags" is 'Only jobs with all these tags. Null: all.';
comment on column "app"."webhooks"."failed_tasks" is 'For job.failing: the number of failed tasks in one stage.';
comment on column "app"."webhooks"."stalled_seconds" is 'For job.stalled: how long nothing of a job has begun or ended.';
comment on column "app"."webhooks"."is_paused" is 'True: nothing is written for it, and what waits is not sent.';
comment on column "app"."webhooks"."secret_setting" is 'The app setting that has the secret of its signatures. Null: it is made here.';
comment on column "app"."webhooks"."secret_seed" is 'What the secret is made from, together with COREMACHINE_WEBHOOK_KEY. Useless alone.';
comment on column "app"."webhooks"."former_seed" is 'The seed before the latest change of the secret.';
comment on column "app"."webhooks"."former_until" is 'Until this time deliveries are signed with the former secret too.';
comment on column "app"."webhooks"."description" is 'A text for people.';
comment on column "app"."webhooks"."revision" is 'Raised by each change.';
comment on column "app"."webhooks"."last_change" is 'The latest change: action, actor, at.';
comment on column "app"."webhooks"."created_at" is 'When it was first written.';
comment on column "app"."webhooks"."updated_at" is 'When it was last changed.';

comment on table "app"."webhook_deliveries" is 'One event for one webhook, written in the transaction in which it happened.';
comment on column "app"."webhook_deliveries"."webhook" is 'The webhook.';
comment on column "app"."webhook_deliveries"."delivery_id" is 'A random id, the same at each attempt: receivers tell repetitions by it.';
comment on column "app"."webhook_deliveries"."event" is 'What happened, such as job.failed.';
comment on column "app"."webhook_deliveries"."subject" is 'The job''s id, or the schedule''s name.';
comment on column "app"."webhook_deliveries"."data" is 'What is said of it.';
comment on column "app"."webhook_deliveries"."status" is 'pending, delivered or dead.';
comment on column "app"."webhook_deliveries"."attempt" is 'How often it was sent.';
comment on column "app"."webhook_deliveries"."first_attempt" is 'Attempts before somebody asked to send it again; they spend no retry.';
comment on column "app"."webhook_deliveries"."due_at" is 'While pending: not sent before this time.';
comment on column "app"."webhook_deliveries"."held_until" is 'While an attempt is under way: nobody else sends it before this time.';
comment on column "app"."webhook_deliveries"."http_status" is 'The latest answer''s status. Null: there was none.';
comment on column "app"."webhook_deliveries"."reason" is 'Why the latest attempt did not deliver it.';
comment on column "app"."webhook_deliveries"."created_at" is 'When it happened.';
comment on column "app"."webhook_deliveries"."settled_at" is 'When it was delivered or given up.';

comment on table "app"."app_instances" is 'A process of an app: what it is and what it can do. Nothing decides by it; it is for people and warnings.';
comment on column "app"."app_instances"."instance" is 'The name of the process, as in lease_owner of tasks.';
comment on column "app"."app_instances"."app_name" is 'The app that the process belongs to: COREMACHINE_APP_NAME.';
comment on column "app"."app_instances"."mode" is 'What the app does: standalone, platform or worker.';
comment on column "app"."app_instances"."version" is 'The version of CoreMachine that it runs.';
comment on column "app"."app_instances"."release" is 'The release of the app''s own code: COREMACHINE_RELEASE; null if it is not set.';
comment on column "app"."app_instances"."queues" is 'Logical names of the queues that it reads, sorted.';
comment on column "app"."app_instances"."task_types" is 'The task types that it has handlers for, sorted.';
comment on column "app"."app_instances"."job_types" is 'The job types that it has, sorted.';
comment on column "app"."app_instances"."slots" is 'The largest number of tasks that it runs at once; 0 if it runs none.';
comment on column "app"."app_instances"."started_at" is 'When it registered itself first.';
comment on column "app"."app_instances"."seen_at" is 'When it registered itself last. A live process does so every 20 seconds.';
comment on column "app"."app_instances"."ended_at" is 'When it said that it ends. Null while it runs, and after a crash.';

comment on table "app"."limits" is 'How many tasks of all stages that name it may run at once, and how many may begin in a time.';
comment on column "app"."limits"."name" is 'What stages call it, with the parameters of their job in it.';
comment on column "app"."limits"."at_once" is 'How many tasks may run at a time; null: any number.';
comment on column "app"."limits"."rate_count" is 'How many may begin in any rate_seconds; null, as rate_seconds: any number.';
comment on column "app"."limits"."rate_seconds" is 'The period of the rate.';
comment on column "app"."limits"."is_edited" is 'True: an operator chose the numbers. False: the stage that was planned last did.';
comment on column "app"."limits"."turn" is 'Where its queue of stages is: the turn of the stage that was served last.';
comment on column "app"."limits"."created_at" is 'When a stage first named it, or an operator.';
comment on column "app"."limits"."used_at" is 'When it was last needed, give or take ten minutes; the janitor''s.';
comment on column "app"."limits"."edited_at" is 'When an operator last changed it.';
comment on column "app"."limits"."edited_by" is 'The person or app that did; null where nobody vouches for a name.';
comment on column "app"."limits"."reason" is 'Why, as the operator wrote it.';

comment on table "app"."limit_places" is 'A task''s place in a limit: kept for it since its message was sent, or held by its attempt.';
comment on column "app"."limit_places"."job_id" is 'The job.';
comment on column "app"."limit_places"."run" is 'The run of the job.';
comment on column "app"."limit_places"."task_id" is 'The task.';
comment on column "app"."limit_places"."limit_name" is 'The limit.';
comment on column "app"."limit_places"."stage" is 'The task''s stage.';
comment on column "app"."limit_places"."has_begun" is 'True: an attempt holds it. False: it is kept until the message comes.';
comment on column "app"."limit_places"."ends_at" is 'When it is free again without more: a place that is kept, or that of an attempt which was cut off. Null: when the task''s row leaves processing.';

comment on table "app"."limit_starts" is 'How many tasks began under a limit in a twentieth of its period.';
comment on column "app"."limit_starts"."limit_name" is 'The limit.';
comment on column "app"."limit_starts"."ends_at" is 'The end of that time.';
comment on column "app"."limit_starts"."count" is 'How many tasks began.';

comment on table "app"."limit_waiters" is 'A stage with tasks that wait for a limit; of several, for the one that has the least room.';
comment on column "app"."limit_waiters"."job_id" is 'The job.';
comment on column "app"."limit_waiters"."run" is 'The run of the job.';
comment on column "app"."limit_waiters"."stage" is 'The stage.';
comment on column "app"."limit_waiters"."limit_name" is 'The limit that it waits for.';
comment on column "app"."limit_waiters"."turn" is 'Stages are served in this order; each task that is served adds to it.';
