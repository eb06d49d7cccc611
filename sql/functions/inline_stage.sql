-- Inline stages: one process holds every task of a stage, and has prepared what comes after it from these very results.
-- The end of the stage and the next step commit in one transaction instead of two or three, and nobody sees the job in
-- between. If anything is not as the caller expects (another process has a task, the job is paused or being cancelled,
-- a deadline has passed), nothing is done: CM004, and the caller settles its tasks alone. Since these are all tasks of
-- the stage, no task is left to be watched. Locks in all of them: task rows by id, then the stage, then the job row.

-- Ends a stage with all its tasks and plans the next stage, which has few tasks and at least one.
-- With p_next_lease_id the next tasks are born claimed, as in plan_small_stage.
-- Fence: the lease; the job goes on from this stage.
-- Raises CM004.
create or replace function {schema}.complete_stage_and_plan_next(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[],
  p_next_task_ids text[], p_next_task_types text[], p_next_queues text[], p_next_names text[],
  p_next_parameters jsonb[], p_next_lease_id uuid, p_owner text, p_tasks_per_message integer
) returns void
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_settings jsonb;
begin
  perform {schema}.end_whole_stage(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_results, v_now);
  update {schema}.jobs j
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
  insert into {schema}.stages (job_id, run, stage, status, settings, expected_count, created_at, planned_at)
  values (p_job_id, p_run, p_stage + 1, 'processing', v_settings, cardinality(p_next_task_ids), v_now, v_now);
  if not found then
    perform {schema}.report_left_out('stages');
  end if;
  perform {schema}.insert_few_tasks(p_job_id, p_run, p_stage + 1, p_next_task_ids, p_next_task_types, p_next_queues,
    p_next_names, p_next_parameters, p_next_lease_id, p_owner, (v_settings ->> 'lease_seconds')::double precision);
  insert into {schema}.job_events (job_id, run, stage, event, detail, at)
  values (p_job_id, p_run, p_stage, 'stage_completed', jsonb_build_object(), v_now),
    (p_job_id, p_run, p_stage + 1, 'stage_planned',
      jsonb_build_object('expected_count', cardinality(p_next_task_ids)), v_now);
  if not found then
    perform {schema}.report_left_out('job_events');
  end if;
end $$;

-- Ends the last stage with all its tasks and the job with its summary. Returns the job's final status.
-- Fence: the lease; this is the last stage.
-- Raises CM004.
create or replace function {schema}.complete_stage_and_finalize(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[],
  p_job_result jsonb
) returns text
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_now timestamptz := {schema}.clock();
  v_status text;
begin
  perform {schema}.end_whole_stage(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_results, v_now);
  update {schema}.jobs j
  set status = case when exists (
        select 1 from {schema}.stages s where s.job_id = p_job_id and s.run = p_run and s.failed_count > 0
      ) then 'completed_with_errors' else 'completed' end,
      result = p_job_result, announced_at = null, attempt = 0, due_at = null, finished_at = v_now, updated_at = v_now
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = 'processing'
    and p_stage = j.total_stages and j.paused_at is null and (j.deadline_at <= v_now) is not true
  returning j.status into v_status;
  if not found then
    raise exception 'job % run % does not end with stage %', p_job_id, p_run, p_stage using errcode = 'CM004';
  end if;
  insert into {schema}.job_events (job_id, run, stage, event, detail, at)
  values (p_job_id, p_run, p_stage, 'stage_completed', jsonb_build_object(), v_now),
    (p_job_id, p_run, null, 'job_' || v_status, jsonb_build_object(), v_now);
  if not found then
    perform {schema}.report_left_out('job_events');
  end if;
  perform {schema}.note_job_event(p_job_id, p_run, 'job.' || v_status);
  return v_status;
end $$;

-- Ends all tasks of a stage as completed, and the stage with them. Raises CM004 when these are not all of them.
create or replace function {schema}.end_whole_stage(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[],
  p_now timestamptz
) returns void
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_count integer := 1;
begin
  if cardinality(p_task_ids) > 1 then
    v_count := {schema}.complete_held_tasks(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_results, p_now);
  else
    update {schema}.tasks t
    set status = 'completed', is_watched = false, lease_id = null, lease_expires_at = null, finished_at = p_now,
        result = p_results[1], error = null
    where t.job_id = p_job_id and t.run = p_run and t.task_id = p_task_ids[1] and t.stage = p_stage
      and t.status is not distinct from 'processing' and t.lease_id = p_lease_id;
    get diagnostics v_count = row_count;
  end if;
  perform {schema}.lock_stage(p_job_id, p_run, p_stage);
  update {schema}.stages s set status = 'completed', finished_at = p_now
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.status = 'processing'
    and s.expected_count = v_count and s.failed_count = 0;
  if not found or v_count < cardinality(p_task_ids) then
    raise exception 'these are not all tasks of stage % of job % run %', p_stage, p_job_id, p_run
      using errcode = 'CM004';
  end if;
end $$;

-- Completes those of these tasks that the lease holds, and returns how many they are.
create or replace function {schema}.complete_held_tasks(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[],
  p_now timestamptz
) returns integer
language plpgsql set enable_seqscan = off as $$
declare
  v_places tid[];
begin
  select coalesce(array_agg(h.place), array[]::tid[]) into v_places from {schema}.ids_in_order(p_task_ids) as named
  cross join lateral (
    select t.ctid as place from {schema}.tasks t
    where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id and t.stage = p_stage
      and t.status is not distinct from 'processing' and t.lease_id = p_lease_id
    for update
  ) h;
  perform {schema}.end_tasks(v_places, 'completed', p_task_ids, p_results, p_now);
  return cardinality(v_places);
end $$;
