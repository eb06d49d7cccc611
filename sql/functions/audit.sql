-- Audit: who did what to which job, and why. The rows outlive their jobs; prune_audit deletes them by age.

-- Writes down what somebody did, in the transaction that does it; p_job_id is empty for an action on many. Locks: none but the new row's.
create or replace function {schema}.record_audit(
  p_action text, p_job_id text, p_actor text, p_reason text, p_detail jsonb
) returns void
language plpgsql as $$
begin
  insert into {schema}.audit_log (action, job_id, actor, reason, detail, at)
  values (p_action, p_job_id, p_actor, p_reason, coalesce(jsonb_strip_nulls(p_detail), jsonb_build_object()),
    {schema}.clock());
  if not found then
    perform {schema}.report_left_out('audit_log');
  end if;
end $$;

-- Deletes up to p_limit rows that are older than p_older_than_seconds; returns how many.
-- Locks: rows of the log; those that others hold are skipped.
create or replace function {schema}.prune_audit(p_older_than_seconds double precision, p_limit integer) returns integer
language plpgsql as $$
declare
  v_count integer;
begin
  delete from {schema}.audit_log a
  where a.ctid = any (array(
    select o.ctid from {schema}.audit_log o
    where o.at < {schema}.clock() - p_older_than_seconds * interval '1 second'
    order by o.at limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;
