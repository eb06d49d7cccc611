-- I2: a task that is processed has a lease with an owner and an end, and no other task has one.
select t.job_id, t.run, t.task_id, t.status, t.lease_id, t.lease_owner, t.lease_expires_at
from {schema}.tasks t
where case t.status
  when 'processing' then t.lease_id is null or t.lease_owner is null or t.lease_expires_at is null or t.attempt < 1
  else t.lease_id is not null or t.lease_expires_at is not null
end
