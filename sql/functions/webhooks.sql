-- Webhooks: addresses that receive events. Deliveries are rows, written in the transaction of what happened: none is lost, and none
-- is sent for what did not happen. A sender takes them under a hold, so that one process at a time sends each.

-- Whether a text fits one of these patterns, in which a star is any characters; or there is no pattern.
create or replace function {schema}.fits_patterns(p_text text, p_patterns text[]) returns boolean
language sql immutable as $$
  select cardinality(p_patterns) = 0 or exists (
    select from unnest(p_patterns) as p(pattern)
    where p_text like replace(replace(replace(replace(p.pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%'))
$$;

-- Writes the deliveries of something that happened to a job, for each webhook that asks for it. Without webhooks it
-- reads an empty table. Locks: none but the new rows'; the caller has the job row.
create or replace function {schema}.note_job_event(p_job_id text, p_run integer, p_event text) returns void
language plpgsql as $$
begin
  if not exists (select from {schema}.webhooks) then
    return;
  end if;
  insert into {schema}.webhook_deliveries (webhook, delivery_id, event, subject, data, due_at, created_at)
  select w.name, gen_random_uuid()::text, p_event, p_job_id, jsonb_strip_nulls(jsonb_build_object(
      'job_id', j.job_id, 'job_type', j.job_type, 'run', p_run, 'status', j.status, 'stage', j.stage,
      'total_stages', j.total_stages, 'correlation_id', j.correlation_id, 'tags', j.tags,
      'error_type', j.error ->> 'type', 'error_message', left(j.error ->> 'message', 1000),
      'created_at', j.created_at, 'finished_at', j.finished_at)),
    {schema}.clock(), {schema}.clock()
  from {schema}.jobs j
  join {schema}.webhooks w on p_event = any (w.events) and not w.is_paused
    and {schema}.fits_patterns(j.job_type, w.job_types) and (w.tags is null or j.tags @> w.tags)
  where j.job_id = p_job_id;
end $$;

-- Writes deliveries of job.failing for the webhooks whose number of failed tasks was reached between two counts of
-- one stage. Locks: none but the new rows'.
create or replace function {schema}.note_failed_tasks(
  p_job_id text, p_run integer, p_stage integer, p_count_before integer, p_count integer
) returns void
language plpgsql as $$
begin
  insert into {schema}.webhook_deliveries (webhook, delivery_id, event, subject, data, due_at, created_at)
  select w.name, gen_random_uuid()::text, 'job.failing', p_job_id, jsonb_strip_nulls(jsonb_build_object(
      'job_id', j.job_id, 'job_type', j.job_type, 'run', p_run, 'status', j.status, 'stage', p_stage,
      'total_stages', j.total_stages, 'correlation_id', j.correlation_id, 'tags', j.tags,
      'failed_tasks', p_count, 'created_at', j.created_at)),
    {schema}.clock(), {schema}.clock()
  from {schema}.jobs j
  join {schema}.webhooks w on 'job.failing' = any (w.events) and not w.is_paused
    and w.failed_tasks > p_count_before and w.failed_tasks <= p_count
    and {schema}.fits_patterns(j.job_type, w.job_types) and (w.tags is null or j.tags @> w.tags)
  where j.job_id = p_job_id;
end $$;

-- When something of a job's present stage last began, ended or was taken into its window, or the job itself moved.
-- Of a stage that is announced in windows it looks at those of the window alone, so that it reads few of many tasks.
create or replace function {schema}.last_move(p_job_id text, p_run integer, p_stage integer, p_moved_at timestamptz)
returns timestamptz
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_stage record;
begin
  select s.planned_at, s.window_at, coalesce(s.window_from, '') as first, s.window_after as last into v_stage
  from {schema}.stages s where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  return greatest(p_moved_at, v_stage.planned_at, v_stage.window_at, (
    select max(greatest(t.started_at, t.finished_at)) from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.stage = p_stage
      and t.task_id >= v_stage.first and (v_stage.last is null or t.task_id <= v_stage.last)));
end $$;

-- Writes deliveries of job.stalled for jobs that have not moved for a webhook's time: one for each time that a job
-- stops. Returns for how many jobs. Paused jobs, and those that are to start later, wait on purpose.
-- It looks at up to p_limit jobs, in random order. Fence: stall_noted_at, under the job row. Locks: job rows; those that
-- others hold are skipped.
create or replace function {schema}.note_stalled_jobs(p_limit integer) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_shortest integer;
  v_job_id text;
  v_job record;
  v_moved_at timestamptz;
  v_count integer := 0;
begin
  select min(w.stalled_seconds) into v_shortest from {schema}.webhooks w
  where 'job.stalled' = any (w.events) and not w.is_paused;
  if v_shortest is null then
    return 0;
  end if;
  for v_job_id in
    select o.job_id from (
      select j.job_id from {schema}.jobs j
      where j.status in ({open_jobs}) and j.updated_at < v_now - v_shortest * interval '1 second'
        and j.paused_at is null and (j.start_at is null or j.start_at < v_now - v_shortest * interval '1 second')
      order by random() limit p_limit
    ) o
    order by o.job_id
  loop
    select j.job_id, j.job_type, j.run, j.stage, j.total_stages, j.status, j.correlation_id, j.tags, j.created_at,
      j.stall_noted_at, greatest(j.updated_at, j.start_at) as moved_at
    into v_job
    from {schema}.jobs j
    where j.job_id = v_job_id and j.status in ({open_jobs}) and j.paused_at is null for update skip locked;
    continue when not found;
    v_moved_at := {schema}.last_move(v_job.job_id, v_job.run, v_job.stage, v_job.moved_at);
    insert into {schema}.webhook_deliveries (webhook, delivery_id, event, subject, data, due_at, created_at)
    select w.name, gen_random_uuid()::text, 'job.stalled', v_job.job_id, jsonb_strip_nulls(jsonb_build_object(
        'job_id', v_job.job_id, 'job_type', v_job.job_type, 'run', v_job.run, 'status', v_job.status,
        'stage', v_job.stage, 'total_stages', v_job.total_stages, 'correlation_id', v_job.correlation_id,
        'tags', v_job.tags, 'created_at', v_job.created_at, 'moved_at', v_moved_at,
        'stalled_seconds', w.stalled_seconds, 'explain', '/api/jobs/' || v_job.job_id || '/explain')),
      v_now, v_now
    from {schema}.webhooks w
    where 'job.stalled' = any (w.events) and not w.is_paused
      and v_moved_at + w.stalled_seconds * interval '1 second' <= v_now
      and (v_job.stall_noted_at is null or v_moved_at + w.stalled_seconds * interval '1 second' > v_job.stall_noted_at)
      and {schema}.fits_patterns(v_job.job_type, w.job_types) and (w.tags is null or v_job.tags @> w.tags);
    if found then
      update {schema}.jobs j set stall_noted_at = v_now where j.job_id = v_job.job_id;
      v_count := v_count + 1;
    end if;
  end loop;
  return v_count;
end $$;

-- Writes the deliveries of something that happened to a schedule. A webhook that asks for tags is about jobs alone.
-- Locks: none but the new rows'.
create or replace function {schema}.note_schedule_event(p_name text, p_job_type text, p_event text, p_data jsonb)
returns void
language plpgsql as $$
begin
  insert into {schema}.webhook_deliveries (webhook, delivery_id, event, subject, data, due_at, created_at)
  select w.name, gen_random_uuid()::text, p_event, p_name, jsonb_strip_nulls(
      jsonb_build_object('schedule', p_name, 'job_type', p_job_type) || p_data),
    {schema}.clock(), {schema}.clock()
  from {schema}.webhooks w
  where p_event = any (w.events) and not w.is_paused and w.tags is null
    and {schema}.fits_patterns(p_job_type, w.job_types);
end $$;

-- Writes a webhook, or replaces the one of its name; what waits for it then goes to the new address.
-- p_secret_seed is used where the webhook has no secret yet and p_secret_setting is null; an older seed stays.
-- Returns whether it is new and the seed that counts. Locks: the webhook row.
create or replace function {schema}.put_webhook(
  p_name text, p_url text, p_url_setting text, p_events text[], p_job_types text[], p_tags jsonb,
  p_failed_tasks integer, p_is_paused boolean, p_secret_setting text, p_secret_seed text, p_description text,
  p_actor text, p_stalled_seconds integer
) returns table (is_new boolean, seed text)
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  insert into {schema}.webhooks as w (
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
    perform {schema}.report_left_out('webhooks');
  end if;
  perform {schema}.record_audit('webhook_put', '', p_actor, null, jsonb_build_object('webhook', p_name));
  return next;
end $$;

-- Writes a webhook, as the release before calls it: it knows no job.stalled, and leaves the time as it is.
create or replace function {schema}.put_webhook(
  p_name text, p_url text, p_url_setting text, p_events text[], p_job_types text[], p_tags jsonb,
  p_failed_tasks integer, p_is_paused boolean, p_secret_setting text, p_secret_seed text, p_description text,
  p_actor text
) returns table (is_new boolean, seed text)
language sql as $$
  select p.is_new, p.seed from {schema}.put_webhook(p_name, p_url, p_url_setting, p_events, p_job_types, p_tags,
    p_failed_tasks, p_is_paused, p_secret_setting, p_secret_seed, p_description, p_actor,
    coalesce((select w.stalled_seconds from {schema}.webhooks w where w.name = p_name), 1800)) p;
$$;

-- Gives a webhook another secret; for p_both_seconds deliveries are signed with the former one too.
-- Returns false where there is no such webhook, or its secret is in an app setting. Locks: the webhook row.
create or replace function {schema}.rotate_webhook_secret(
  p_name text, p_secret_seed text, p_both_seconds double precision, p_actor text
) returns boolean
language plpgsql as $$
begin
  perform from {schema}.webhooks w where w.name = p_name and w.secret_seed is not null for update;
  if not found then
    return false;
  end if;
  update {schema}.webhooks w
  set former_seed = w.secret_seed, former_until = {schema}.clock() + p_both_seconds * interval '1 second',
    secret_seed = p_secret_seed, revision = w.revision + 1, updated_at = {schema}.clock(),
    last_change = jsonb_strip_nulls(jsonb_build_object('action', 'rotated', 'actor', p_actor, 'at', {schema}.clock()))
  where w.name = p_name;
  if not found then
    perform {schema}.report_left_out('webhooks');
  end if;
  perform {schema}.record_audit('webhook_rotate', '', p_actor, null, jsonb_build_object('webhook', p_name));
  return true;
end $$;

-- Deletes a webhook with its deliveries; returns whether it was there. Locks: the webhook row, then its deliveries.
create or replace function {schema}.delete_webhook(p_name text, p_actor text) returns boolean
language plpgsql as $$
declare
  v_found integer;
  v_deleted integer;
begin
  perform from {schema}.webhooks w where w.name = p_name for update;
  if not found then
    return false;
  end if;
  delete from {schema}.webhooks w where w.name = p_name;
  if not found then
    perform {schema}.report_left_out('webhooks');
  end if;
  -- Those that were there: a job that ends meanwhile may add one.
  perform from {schema}.webhook_deliveries d where d.webhook = p_name for update;
  get diagnostics v_found = row_count;
  delete from {schema}.webhook_deliveries d where d.webhook = p_name;
  get diagnostics v_deleted = row_count;
  if v_deleted < v_found then
    perform {schema}.report_left_out('webhook_deliveries');
  end if;
  perform {schema}.record_audit('webhook_delete', '', p_actor, null, jsonb_build_object('webhook', p_name));
  return true;
end $$;

-- Writes a delivery that somebody asks for as a test. Returns its id; null where there is no such webhook.
-- Locks: the webhook row, shared, then the new row's.
create or replace function {schema}.add_test_delivery(p_name text, p_actor text) returns text
language plpgsql as $$
declare
  v_delivery_id text;
begin
  perform from {schema}.webhooks w where w.name = p_name for key share;
  if not found then
    return null;
  end if;
  insert into {schema}.webhook_deliveries (webhook, delivery_id, event, subject, data, due_at, created_at)
  values (p_name, gen_random_uuid()::text, 'webhook.test', p_name,
    jsonb_strip_nulls(jsonb_build_object('webhook', p_name, 'actor', p_actor)), {schema}.clock(), {schema}.clock())
  returning delivery_id into v_delivery_id;
  if not found then
    perform {schema}.report_left_out('webhook_deliveries');
  end if;
  return v_delivery_id;
end $$;

-- Lets an ended delivery be sent again, with all its attempts. Returns its status before; null where it is not there.
-- Fence: it is not pending. Locks: the delivery row.
create or replace function {schema}.redeliver(p_name text, p_delivery_id text, p_actor text) returns text
language plpgsql as $$
declare
  v_status text;
begin
  select d.status into v_status from {schema}.webhook_deliveries d
  where d.webhook = p_name and d.delivery_id = p_delivery_id for update;
  if v_status <> 'pending' then
    update {schema}.webhook_deliveries d
    set status = 'pending', first_attempt = d.attempt, due_at = {schema}.clock(), settled_at = null, reason = null
    where d.webhook = p_name and d.delivery_id = p_delivery_id;
    if not found then
      perform {schema}.report_left_out('webhook_deliveries');
    end if;
    perform {schema}.record_audit('webhook_redeliver', '', p_actor, null,
      jsonb_build_object('webhook', p_name, 'delivery_id', p_delivery_id));
  end if;
  return v_status;
end $$;

-- Takes deliveries that are due, first for webhooks with few on their way, of each at most p_most_each at a time; others
-- leave them alone for p_hold_seconds. So a receiver that does not answer keeps a few of a sender's places, and no more.
-- Fence: the status and the hold. Locks: delivery rows; those that others hold are skipped.
create or replace function {schema}.claim_deliveries(
  p_limit integer, p_most_each integer, p_hold_seconds double precision
) returns table (
  webhook text, delivery_id text, event text, subject text, data jsonb, attempt integer, first_attempt integer,
  created_at timestamptz, url text, url_setting text, secret_setting text, secret_seed text, former_seed text
)
language sql as $$
  with found as (
    select w.name, o.delivery_id, w.url, w.url_setting, w.secret_setting, w.secret_seed,
      case when w.former_until > {schema}.clock() then w.former_seed end as former_seed
    from {schema}.webhooks w
    cross join lateral (
      select count(*) as count from {schema}.webhook_deliveries h
      where h.webhook = w.name and h.held_until > {schema}.clock()
    ) held
    cross join lateral (
      select d.delivery_id, d.due_at from {schema}.webhook_deliveries d
      where d.webhook = w.name and d.status = 'pending' and d.due_at <= {schema}.clock()
        and (d.held_until is null or d.held_until <= {schema}.clock())
      order by d.due_at limit greatest(0, p_most_each - held.count) for update skip locked
    ) o
    where not w.is_paused order by held.count, o.due_at limit p_limit
  )
  update {schema}.webhook_deliveries d
  set attempt = d.attempt + 1, held_until = {schema}.clock() + p_hold_seconds * interval '1 second'
  from found f where d.webhook = f.name and d.delivery_id = f.delivery_id
  returning d.webhook, d.delivery_id, d.event, d.subject, d.data, d.attempt, d.first_attempt, d.created_at, f.url,
    f.url_setting, f.secret_setting, f.secret_seed, f.former_seed
$$;

-- Adds to a delivery of job.stalled why the job does not move; returns the data that it has now, null where it is gone.
-- Fence: it is pending and has no reason, so that each attempt sends the same. Locks: the delivery row.
create or replace function {schema}.add_delivery_reason(p_webhook text, p_delivery_id text, p_why jsonb) returns jsonb
language sql as $$
  update {schema}.webhook_deliveries d
  set data = case
    when d.status = 'pending' and not d.data ? 'why' then d.data || jsonb_build_object('why', p_why) else d.data end
  where d.webhook = p_webhook and d.delivery_id = p_delivery_id
  returning d.data
$$;

-- Notes what came of an attempt: delivered, dead, or pending again after p_delay_seconds.
-- Returns false where a later attempt has the delivery, or it was settled.
-- Fence: the status and the attempt. Locks: the delivery row.
create or replace function {schema}.settle_delivery(
  p_webhook text, p_delivery_id text, p_attempt integer, p_status text, p_http_status integer, p_reason text,
  p_delay_seconds double precision
) returns boolean
language plpgsql as $$
begin
  update {schema}.webhook_deliveries d
  set status = p_status, http_status = p_http_status, reason = p_reason, held_until = null,
    due_at = {schema}.clock() + coalesce(p_delay_seconds, 0) * interval '1 second',
    settled_at = case when p_status <> 'pending' then {schema}.clock() end
  where d.webhook = p_webhook and d.delivery_id = p_delivery_id and d.status = 'pending' and d.attempt = p_attempt;
  return found;
end $$;

-- Deletes up to p_limit deliveries that were settled longer ago than p_older_than_seconds, or whose webhook was deleted
-- while they were written; returns how many. Locks: delivery rows; those that others hold are skipped.
create or replace function {schema}.prune_deliveries(p_older_than_seconds double precision, p_limit integer)
returns integer
language plpgsql as $$
declare
  v_count integer;
begin
  delete from {schema}.webhook_deliveries d
  where d.ctid = any (array(
    select o.ctid from {schema}.webhook_deliveries o
    where o.settled_at < {schema}.clock() - p_older_than_seconds * interval '1 second'
      or (o.status = 'pending' and not exists (select from {schema}.webhooks w where w.name = o.webhook))
    limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;
