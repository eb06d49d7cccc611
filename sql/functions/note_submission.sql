-- Adds to the event of a submission that began this run: who asked, what could not be checked. Again changes nothing.
-- A call of its own, since most submissions have nothing to add. Fence: only that run's event. Locks: the event.
create or replace function {schema}.note_submission(p_job_id text, p_run integer, p_detail jsonb) returns void
language sql as $$
  update {schema}.job_events e set detail = e.detail || p_detail
  where e.job_id = p_job_id and e.run = p_run and e.event in ('job_submitted', 'job_rerun');
$$;
