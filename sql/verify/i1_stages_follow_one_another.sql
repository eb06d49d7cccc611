-- I1: stages run one after the other: before the stage that a job stands at all are completed, after it there is none.
select s.job_id, s.run, s.stage, s.status, j.stage as job_stage
from {schema}.stages s
join {schema}.jobs j on j.job_id = s.job_id and j.run = s.run
where s.stage > j.stage or (s.stage < j.stage and s.status not in ({completed_stages}))
