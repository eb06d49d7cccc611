-- I7: the machine makes the one task of a fan_in stage.
select s.job_id, s.run, s.stage, s.expected_count
from {schema}.stages s
where s.settings ->> 'parallelism' = 'fan_in' and s.expected_count <> 1
