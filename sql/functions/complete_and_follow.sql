-- The end of a stage of which one process holds every task, and what follows from it, in one transaction: one commit
-- instead of two, and nobody sees the job in between. The caller prepared what follows from the very results given
-- here; so it is done only if the lease still held all of these tasks and they were the stage's last. Otherwise these
-- functions do what complete_task_and_check_stage does, and what follows is left to be decided anew.
-- Locks: that function's; then the next stage's, tried, not awaited; then the job row.

-- The next stage has few tasks: plan_small_stage says what they are. plan_outcome is its outcome, or null.
create or replace function {schema}.complete_stage_and_plan_next(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[],
  p_next_task_ids text[], p_next_task_types text[], p_next_queues text[], p_next_names text[],
  p_next_parameters jsonb[], p_next_lease_id uuid, p_owner text, p_tasks_per_message integer
) returns table (
  updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text, plan_outcome text
)
language plpgsql as $$
begin
  select c.* into updated_ids, is_last_task_in_stage, stage_status, job_status
  from {schema}.complete_task_and_check_stage(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_results) c;
  if is_last_task_in_stage and job_status = 'queued' and cardinality(updated_ids) = cardinality(p_task_ids) then
    plan_outcome := {schema}.plan_small_stage(p_job_id, p_run, p_stage + 1, p_next_task_ids, p_next_task_types,
      p_next_queues, p_next_names, p_next_parameters, p_next_lease_id, p_owner, p_tasks_per_message);
  end if;
  return next;
end $$;

-- It was the last stage: the job ends with its summary, and job_status says how.
create or replace function {schema}.complete_stage_and_finalize(
  p_job_id text, p_run integer, p_stage integer, p_lease_id uuid, p_task_ids text[], p_results jsonb[],
  p_job_result jsonb
) returns table (updated_ids text[], is_last_task_in_stage boolean, stage_status text, job_status text)
language plpgsql as $$
begin
  select c.* into updated_ids, is_last_task_in_stage, stage_status, job_status
  from {schema}.complete_task_and_check_stage(p_job_id, p_run, p_stage, p_lease_id, p_task_ids, p_results) c;
  if is_last_task_in_stage and job_status = 'finalizing' and cardinality(updated_ids) = cardinality(p_task_ids) then
    job_status := {schema}.finalize_job(p_job_id, p_run, p_job_result);
  end if;
  return next;
end $$;
