-- A dead message that was dealt with says when and how, and keeps what it was about.
select d.job_id, d.dead_letter_id, d.resolution, d.resolved_at
from {schema}.dead_letters d
where (d.resolution is null) is distinct from (d.resolved_at is null)
  or d.task_id <> coalesce(d.task_ids[1], '')
