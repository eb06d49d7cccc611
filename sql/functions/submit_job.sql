-- Writes the job and its first stage, or answers with the job that is there already.
-- Fence: the primary key decides the one winner among simultaneous submissions.
create or replace function {schema}.submit_job(
  p_job_id text, p_job_type text, p_parameters jsonb, p_definition jsonb, p_correlation_id text
) returns table (created boolean, status text, run integer)
language plpgsql as $$
declare
  v_now timestamptz := {schema}.clock();
begin
  insert into {schema}.jobs (
    job_id, job_type, total_stages, parameters, definition, correlation_id, created_at, updated_at
  ) values (
    p_job_id, p_job_type, jsonb_array_length(p_definition -> 'stages'), p_parameters, p_definition,
    p_correlation_id, v_now, v_now
  ) on conflict do nothing;
  created := found;
  if created then
    insert into {schema}.stages (job_id, run, stage, settings, created_at)
    values (p_job_id, 1, 1, p_definition -> 'stages' -> 0, v_now);
    perform {schema}.record_event(p_job_id, 1, null, null, 'job_submitted', null);
  end if;
  select j.status, j.run into status, run from {schema}.jobs j where j.job_id = p_job_id;
  return next;
end $$;
