-- Events: the job's timeline. A task's plain success has none, since its own row shows it.

-- Writes one line of the job's timeline. Raises CM006 where it is left out. Locks: none but the new row's.
create or replace function {schema}.record_event(
  p_job_id text, p_run integer, p_stage integer, p_task_id text, p_event text, p_detail jsonb
) returns void
language plpgsql as $$
begin
  insert into {schema}.job_events (job_id, run, stage, task_id, event, detail, at)
  values (p_job_id, p_run, p_stage, p_task_id, p_event, coalesce(p_detail, jsonb_build_object()), {schema}.clock());
  if not found then
    perform {schema}.report_left_out('job_events');
  end if;
end $$;
