-- Advance: whether a stage has ended is decided here, and its job advances to the next stage or to its own summary.

-- Decides what to do after tasks of a stage ended in this transaction: whatever ends tasks calls it, be it an outcome, a
-- deadline, a cancel, too many interruptions, a postponed task whose time ran out, or the janitor.
-- It counts their failures, applies the failure policy, and ends the stage if no task is open. Returns whether this
-- transaction ended it. p_was_open: the caller saw the stage open, and has written results that count only then.
-- Locks: the stage, then the job row; it never waits for a task row after them.
-- Raises CM001 when p_was_open and the stage ended between the look at it and its lock: call again.
create or replace function {schema}.check_stage(
  p_job_id text, p_run integer, p_stage integer, p_was_open boolean, p_failed_ids text[]
) returns boolean
language plpgsql set enable_seqscan = off as $$
declare
  v_stage record;
  v_task record;
  v_reason text;
begin
  perform {schema}.lock_stage(p_job_id, p_run, p_stage);
  select s.status = 'processing' and j.run = p_run as runs, j.status = 'processing' as job_runs,
         j.status = 'cancelling' as is_cancelling, s.settings -> 'failure' as policy, s.failed_count, s.expected_count
  into v_stage
  from {schema}.stages s join {schema}.jobs j on j.job_id = s.job_id
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage;

  if p_was_open and not (v_stage.runs and v_stage.job_runs) then
    raise exception 'stage % of job % run % ended meanwhile', p_stage, p_job_id, p_run using errcode = 'CM001';
  end if;
  if not v_stage.runs then
    -- Rows that others had locked when the stage ended.
    perform {schema}.cancel_open_tasks(p_job_id, p_run, p_stage, true);
    return false;
  end if;
  if v_stage.is_cancelling then
    perform {schema}.cancel_open_tasks(p_job_id, p_run, p_stage, false);
  end if;

  if p_failed_ids is not null then
    update {schema}.stages s set failed_count = s.failed_count + cardinality(p_failed_ids)
    where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage
    returning s.failed_count into v_stage.failed_count;
    if not found then
      perform {schema}.report_left_out('stages');
    end if;
    for v_task in
      select named.id as task_id, w.error from {schema}.ids_in_order(p_failed_ids) as named
      cross join lateral (
        select t.error from {schema}.tasks t
        where t.job_id = p_job_id and t.run = p_run and t.task_id = named.id offset 0
      ) w
    loop
      perform {schema}.record_event(p_job_id, p_run, p_stage, v_task.task_id, 'task_failed', v_task.error);
      v_reason := concat_ws(': ', v_task.task_id, v_task.error ->> 'type', v_task.error ->> 'message');
    end loop;
    perform {schema}.note_failed_tasks(p_job_id, p_run, p_stage, v_stage.failed_count - cardinality(p_failed_ids),
      v_stage.failed_count);
    if {schema}.is_over_failure_budget(v_stage.policy, v_stage.failed_count, v_stage.expected_count) then
      perform {schema}.end_job(p_job_id, p_run, 'failed', {schema}.stored_error(
        'StageFailed', format('stage %s failed%s; last failed task %s', p_stage,
          {schema}.words_of_budget(v_stage.policy, v_stage.failed_count, v_stage.expected_count), v_reason),
        false, null, {schema}.clock()
      ) || jsonb_build_object('stage', p_stage, 'failed_count', v_stage.failed_count));
      return true;
    end if;
  end if;

  if {schema}.ensure_watch(p_job_id, p_run, p_stage) then
    return false;
  end if;
  if v_stage.is_cancelling then
    perform {schema}.end_job(p_job_id, p_run, 'cancelled', null);
  else
    perform {schema}.close_stage(p_job_id, p_run, p_stage);
  end if;
  return true;
end $$;

-- Whether this number of failed tasks fails the stage.
create or replace function {schema}.is_over_failure_budget(
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
create or replace function {schema}.words_of_budget(
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
create or replace function {schema}.close_stage(p_job_id text, p_run integer, p_stage integer) returns text
language plpgsql as $$
declare
  v_status text;
begin
  update {schema}.stages s
  set status = case when s.failed_count > 0 then 'completed_with_errors' else 'completed' end,
      finished_at = {schema}.clock()
  where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage and s.status = 'processing'
  returning s.status into v_status;
  if not found then
    return null;
  end if;
  perform {schema}.record_event(p_job_id, p_run, p_stage, null, 'stage_' || v_status, null);
  return {schema}.advance_job_stage(p_job_id, p_run, p_stage);
end $$;

-- Writes the next stage's row, or makes the job finalizing after its last stage.
-- It may be called again at any time: it acts only while the job is still at a stage that has completed. Returns the
-- job's new status, or null.
-- Fence: the job runs at that stage of that run. Locks: the job row.
create or replace function {schema}.advance_job_stage(p_job_id text, p_run integer, p_stage integer) returns text
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
  v_job record;
begin
  update {schema}.jobs j
  set status = case when j.stage < j.total_stages then 'queued' else 'finalizing' end,
      stage = least(j.stage + 1, j.total_stages), announced_at = null, attempt = 0, due_at = null,
      updated_at = v_now
  where j.job_id = p_job_id and j.run = p_run and j.stage = p_stage and j.status = 'processing'
    and exists (
      select 1 from {schema}.stages s
      where s.job_id = p_job_id and s.run = p_run and s.stage = p_stage
        and s.status in ({completed_stages})
    )
  returning j.status, j.stage, j.definition into v_job;
  if not found then
    return null;
  end if;
  if v_job.status = 'queued' then
    insert into {schema}.stages (job_id, run, stage, settings, created_at)
    values (p_job_id, p_run, v_job.stage, v_job.definition -> 'stages' -> (v_job.stage - 1), v_now);
    if not found then
      perform {schema}.report_left_out('stages');
    end if;
  end if;
  return v_job.status;
end $$;
