-- Settlement: attempts end their tasks as completed or failed, and the last one of a stage ends the stage. Processes
-- call complete_task_and_check_stage, complete_tasks_and_check_stage, complete_tasks_and_claim_next and
-- fail_task_and_check_stage; the others are parts of them.
-- docs/explanation/locking.md shows how completions of one stage commit side by side.

-- Ends tasks of one stage as completed, and looks whether the stage has ended: settle_task if it can, else settle_tasks.
-- In plpgsql, whose plans are cached: a function `language sql` would be planned anew at each call.
create or replace function {schema}.complete_task_and_check_stage(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[]
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql as $$
begin
  if cardinality(p_task_ids) = 1
    and {schema}.settle_task(p_job_id, p_run, p_stage, p_lease_id, p_task_ids[1], p_results[1]) then
    updated_ids := p_task_ids;
    is_last_task_in_stage := false;
    stage_status := 'processing';
    job_status := 'processing';
    return next;
    return;
  end if;
  return query
  select * from {schema}.settle_tasks(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_results, 'completed');
end $$;

-- As complete_task_and_check_stage, for tasks of several messages in one call: each has the lease of its own message.
-- One whose lease is lost is missing from updated_ids, and costs the others nothing.
create or replace function {schema}.complete_tasks_and_check_stage(
  p_job_id text, p_run integer, p_stage integer, p_lease_ids uuid[], p_task_ids text[], p_results jsonb[]
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql as $$
begin
  return query
  select * from {schema}.settle_tasks_of_leases(
    p_job_id, p_run, p_stage, p_lease_ids, p_task_ids, p_results, 'completed');
end $$;

-- As complete_tasks_and_check_stage, and claims tasks that wait in line, p_limit at most, under a lease of their
-- own: claim_tasks_in_line. One row for each that was claimed, with the answer for those that ended; one row without a
-- task if none was. The same call once more, after the answer was lost with its connection, ends nothing and finds the
-- tasks that it claimed; otherwise nobody would run them until their lease ends.
create or replace function {schema}.complete_tasks_and_claim_next(
  p_job_id text, p_run integer, p_stage integer, p_lease_ids uuid[], p_task_ids text[], p_results jsonb[],
  p_task_types text[], p_limit integer, p_lease_id uuid, p_owner text
) returns table (
  updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text,
  task_id text, attempt integer, interruptions integer, task_type text, task_index integer, name text, parameters jsonb
)
language plpgsql as $$
#variable_conflict use_column
begin
  if cardinality(p_task_ids) = 1 and {schema}.settle_task(
    p_job_id, p_run, p_stage, p_lease_ids[1], p_task_ids[1], p_results[1]) then
    updated_ids := p_task_ids;
    is_last_task_in_stage := false;
    stage_status := 'processing';
    job_status := 'processing';
  else
    select c.updated_ids, c.is_last_task_in_stage, c.stage_status, c.job_status
    into updated_ids, is_last_task_in_stage, stage_status, job_status
    from {schema}.settle_tasks_of_leases(
      p_job_id, p_run, p_stage, p_lease_ids, p_task_ids, p_results, 'completed') c;
    if cardinality(updated_ids) < cardinality(p_task_ids) then
      return query
      select updated_ids, is_last_task_in_stage, stage_status, job_status, l.*
      from {schema}.tasks_of_lease(p_job_id, p_run, p_stage, p_lease_id) l;
      if found then
        return;
      end if;
    end if;
  end if;
  return query
  select updated_ids, is_last_task_in_stage, stage_status, job_status, n.*
  from (select) as answer left join {schema}.claim_tasks_in_line(
    p_job_id, p_run, p_stage, p_task_types, p_limit, p_lease_id, p_owner) n on true;
end $$;

-- Ends tasks of one stage as failed, applies its failure policy, and looks whether the stage has ended: settle_tasks.
create or replace function {schema}.fail_task_and_check_stage(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_errors jsonb[]
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql as $$
begin
  return query
  select * from {schema}.settle_tasks(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_errors, 'failed');
end $$;

-- Completes one task that is not watched, of a stage that goes on: most completions of a large stage, in few
-- statements.
-- Its plans are made once, since each row is named by its whole key; without sequential scans, since a planner that
-- sees an empty table would choose to read all of it, and that plan would stay when the table has grown. Returns false,
-- with nothing done, when the task, its stage or its job is not like that: settle_tasks is to be called.
-- Fence: the lease. Locks: the task row, then the stage, shared.
-- Raises CM001 when the stage ended or lost its watch between the update and the lock: call again, it then
-- decides.
create or replace function {schema}.settle_task(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_id text, p_result jsonb
) returns boolean
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  update {schema}.tasks t
  set status = 'completed', lease_id = null, lease_expires_at = null, finished_at = v_now, result = p_result,
      error = null
  where t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_id and t.stage = p_stage
    and t.status is not distinct from 'processing' and t.lease_id = p_lease_id and not t.is_watched
    and exists (
      select 1 from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
      where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and {stage_is_open} and not s.is_unwatched
    );
  if not found then
    return false;
  end if;
  perform {schema}.share_stage(p_job_id, p_run, p_stage);
  perform 1 from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and {stage_is_open} and not s.is_unwatched;
  if not found then
    raise exception 'stage % of job % run % ended or lost its watch meanwhile', p_stage, p_job_id, p_run
      using errcode = 'CM001';
  end if;
  return true;
end $$;

-- Ends tasks of one stage, all held under one lease: settle_tasks_of_leases.
create or replace function {schema}.settle_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_payloads jsonb[], p_status text
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql as $$
begin
  return query
  select * from {schema}.settle_tasks_of_leases(p_job_id, p_run, p_stage,
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
create or replace function {schema}.settle_tasks_of_leases(
  p_job_id text, p_run integer, p_stage integer, p_lease_ids uuid[], p_task_ids text[], p_payloads jsonb[], p_status text
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_places tid[];
  v_was_watched boolean;
  v_decides boolean;
  v_stage record;
  v_status text;
begin
  select coalesce(array_agg(named.id), array[]::text[]), array_agg(h.place), coalesce(bool_or(h.is_watched), false),
    (
      select p_status = 'failed' or s.is_unwatched
        or not {stage_is_open}
      from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
      where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage
    )
  into updated_ids, v_places, v_was_watched, v_decides
  from (
    select distinct n.id collate "C" as id, n.lease_id from unnest(p_task_ids, p_lease_ids) as n(id, lease_id) order by 1
  ) as named
  cross join lateral (
    select t.ctid as place, t.is_watched from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
      and t.status is not distinct from 'processing' and t.lease_id = named.lease_id
    for update
  ) h;
  is_last_task_in_stage := false;
  if v_was_watched and not v_decides then
    v_decides := not {schema}.pass_watch(p_job_id, p_run, p_stage, updated_ids);
  end if;
  if v_decides and cardinality(updated_ids) > 0 then
    perform {schema}.lock_stage(p_job_id, p_run, p_stage);
  elsif cardinality(updated_ids) > 0 then
    perform {schema}.share_stage(p_job_id, p_run, p_stage);
  end if;
  select s.status as stage_status, j.status as job_status, s.is_unwatched,
    {stage_is_open} as is_open
  into v_stage
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
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
  perform {schema}.end_tasks(v_places, v_status, p_task_ids, p_payloads, v_now);

  if v_decides then
    is_last_task_in_stage := {schema}.check_stage(p_job_id, p_run, p_stage, false,
      case v_status when 'failed' then updated_ids end);
    select s.status, case when j.paused_at is null then j.status end into stage_status, job_status
    from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;
  end if;
  return next;
end $$;

-- Writes the end of tasks whose rows the caller has locked, at these places; their payloads are among those given.
-- Its plans join by hash: with a nested loop each row would be looked for among all payloads.
create or replace function {schema}.end_tasks(
  p_places tid[], p_status text, p_task_ids text[], p_payloads jsonb[], p_now timestamptz
) returns void
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_nestloop = off as $$
declare
  v_count integer;
begin
  update {schema}.tasks t
  set status = p_status, is_watched = false, lease_id = null, lease_expires_at = null, finished_at = p_now,
      result = case p_status when 'completed' then given.payload else t.result end,
      error = case p_status when 'failed' then {schema}.error_of_attempt(given.payload, t.attempt)
        when 'completed' then null else t.error end
  from unnest(p_task_ids, p_payloads) as given(task_id, payload)
  where t.ctid = any (p_places) and t.task_id = given.task_id;
  get diagnostics v_count = row_count;
  if v_count < cardinality(p_places) then
    perform {schema}.report_left_out('tasks');
  end if;
end $$;
