-- I2: a task of a stage with limits has a place in each of them while it is processed, and no other task holds one.
select t.job_id, t.run, t.task_id, t.status, array_agg(p.limit_name) as places
from {schema}.tasks t
join {schema}.stages s on s.job_id = t.job_id and s.run = t.run and s.stage = t.stage
left join {schema}.limit_places p
  on p.job_id = t.job_id and p.run = t.run and p.task_id = t.task_id and p.has_begun and p.ends_at is null
where t.is_limited
group by t.job_id, t.run, t.task_id, t.status, s.settings
having count(p.limit_name)
  <> case t.status when 'processing' then coalesce(jsonb_array_length(s.settings -> 'limits'), 0) else 0 end
