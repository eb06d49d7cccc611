-- Dead letters: messages that their queue gave up are kept here, and their rows get another message.

-- Keeps a message that its queue gave up, and lets the rows that it named be announced again.
-- Nothing else would announce them. They are held first: 30 s, doubled with each message of theirs that died, at most
-- an hour, so that a message which no worker survives does not come at once again and again. Nothing is failed: age and
-- bad luck never fail work.
-- Outcome: recorded; known (it was delivered twice: nothing changed).
-- Fence: the unique index over what distinguishes messages. Locks: task rows by id, then the job row.
create or replace function {schema}.record_dead_letter(
  p_queue text, p_message_id text, p_sequence_number bigint, p_enqueued_at timestamptz, p_kind text, p_job_id text,
  p_run integer, p_stage integer, p_task_ids text[], p_reason text, p_description text, p_delivery_count integer,
  p_correlation_id text, p_body text, p_body_size integer
) returns table (
  outcome text, dead_letter_id bigint, job_found boolean, released integer, hold_seconds double precision
)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
  v_now timestamptz := {schema}.clock();
  v_due timestamptz;
  v_task_id text := coalesce(p_task_ids[1], '');
  v_job_run integer;
  v_places tid[];
begin
  insert into {schema}.dead_letters (
    job_id, queue, message_id, sequence_number, enqueued_at, kind, run, stage, task_id, task_ids, reason, description,
    fingerprint, delivery_count, correlation_id, body, body_size, received_at
  ) values (
    p_job_id, p_queue, p_message_id, p_sequence_number, p_enqueued_at, p_kind, p_run, p_stage, v_task_id, p_task_ids,
    p_reason, p_description, {schema}.error_fingerprint(p_reason, p_description), p_delivery_count, p_correlation_id,
    p_body, p_body_size, v_now
  ) on conflict do nothing returning dead_letters.dead_letter_id into dead_letter_id;
  outcome := case when found then 'recorded' else 'known' end;
  job_found := false;
  released := 0;
  if outcome = 'known' then
    -- The message leaves its queue when this returns.
    if not exists (
      select from {schema}.dead_letters d
      where d.job_id = p_job_id and d.queue = p_queue and d.message_id = p_message_id
        and d.sequence_number = p_sequence_number and d.enqueued_at = p_enqueued_at
    ) then
      perform {schema}.report_left_out('dead_letters');
    end if;
    return next;
    return;
  end if;

  select least(30 * 2.0 ^ (least(greatest(count(*), 1), 8) - 1), 3600) into hold_seconds from {schema}.dead_letters d
  where d.job_id = p_job_id and d.run = p_run and d.stage = p_stage and d.task_id = v_task_id;
  v_due := v_now + hold_seconds * interval '1 second';
  select j.run into v_job_run from {schema}.jobs j where j.job_id = p_job_id;
  job_found := found;
  if job_found and p_kind = 'task' then
    select array_agg(o.place) into v_places from {schema}.ids_in_order(p_task_ids) as named
    cross join lateral (
      select t.ctid as place from {schema}.tasks t
      where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
        and (t.status = 'queued' or (t.status = 'pending_retry' and t.announced_at is not null))
        and exists (
          select 1 from {schema}.stages s
          where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.status = 'processing'
        )
      for update of t
    ) o;
    update {schema}.tasks t
    set status = case t.status when 'queued' then 'pending' else t.status end, announced_at = null,
        due_at = greatest(t.due_at, v_due)
    where t.ctid = any (v_places);
    get diagnostics released = row_count;
  elsif job_found and p_kind in ('job', 'stage_complete') then
    update {schema}.jobs j set announced_at = null, due_at = greatest(j.due_at, v_due)
    where j.job_id = p_job_id and j.run = p_run and j.status in ({waiting_jobs}) and j.announced_at is not null;
    get diagnostics released = row_count;
  end if;
  if job_found then
    perform {schema}.record_event(p_job_id, least(p_run, v_job_run), p_stage, nullif(v_task_id, ''),
      'message_dead_lettered', jsonb_build_object(
        'dead_letter_id', dead_letter_id, 'queue', p_queue, 'reason', p_reason, 'description', p_description,
        'task_count', cardinality(p_task_ids), 'released', released, 'hold_seconds', hold_seconds));
  end if;
  return next;
end $$;

-- Notes how dead letters were dealt with, and returns how many changed.
-- Those that were dealt with before stay as they are.
-- Locks: their rows by id.
create or replace function {schema}.resolve_dead_letters(
  p_ids bigint[], p_resolution text, p_actor text
) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_ids bigint[];
  v_count integer;
begin
  select array_agg(o.dead_letter_id) into v_ids from (
    select d.dead_letter_id from {schema}.dead_letters d
    where d.dead_letter_id = any (p_ids) and d.resolved_at is null
    order by d.dead_letter_id for update
  ) o;
  update {schema}.dead_letters d set resolved_at = {schema}.clock(), resolution = p_resolution
  where d.dead_letter_id = any (v_ids);
  get diagnostics v_count = row_count;
  if v_count < cardinality(v_ids) then
    perform {schema}.report_left_out('dead_letters');
  end if;
  perform {schema}.record_event(d.job_id, least(d.run, j.run), d.stage, nullif(d.task_id, ''),
    'dead_letter_' || p_resolution, jsonb_build_object('dead_letter_id', d.dead_letter_id, 'queue', d.queue)
      || case when p_actor is null then jsonb_build_object() else jsonb_build_object('actor', p_actor) end)
  from {schema}.dead_letters d join {schema}.jobs j on j.job_id = d.job_id
  where d.dead_letter_id = any (v_ids);
  perform {schema}.record_audit('redrive', coalesce(d.job_id, ''), p_actor, null, jsonb_build_object(
    'dead_letter_id', d.dead_letter_id, 'queue', d.queue, 'outcome', p_resolution))
  from {schema}.dead_letters d where d.dead_letter_id = any (v_ids);
  return coalesce(cardinality(v_ids), 0);
end $$;

-- Notes how dead letters were dealt with, by nobody in particular: the form that the release before calls.
-- There is no default above, since a call with two arguments would fit both.
create or replace function {schema}.resolve_dead_letters(p_ids bigint[], p_resolution text) returns integer
language sql as $$
  select {schema}.resolve_dead_letters(p_ids, p_resolution, null);
$$;
