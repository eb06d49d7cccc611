-- I5: interruptions are among the attempts and spend no retry: an open or failed task has no more attempts of its own than
-- its policy allows, and none has more interruptions than attempts.
select t.job_id, t.run, t.task_id, t.status, t.attempt, t.interruptions
from {schema}.tasks t
join {schema}.stages s on s.job_id = t.job_id and s.run = t.run and s.stage = t.stage
where t.attempt < 0 or t.interruptions < 0 or t.interruptions > t.attempt
  or t.attempt - t.interruptions > (s.settings -> 'retry' ->> 'max_attempts')::integer
