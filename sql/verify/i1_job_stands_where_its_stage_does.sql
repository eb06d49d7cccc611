-- I1: the transaction that ends a stage moves the job on: the job's status goes with that of the stage it stands at.
select j.job_id, j.run, j.status, j.stage, s.status as stage_status
from {schema}.jobs j
left join {schema}.stages s on s.job_id = j.job_id and s.run = j.run and s.stage = j.stage
where s.status is null
  or not case j.status
    when 'queued' then s.status = 'queued'
    when 'processing' then s.status = 'processing'
    when 'cancelling' then s.status = 'processing'
    when 'finalizing' then s.status in ({completed_stages}) and j.stage = j.total_stages
    when 'completed' then s.status in ({completed_stages}) and j.stage = j.total_stages
    when 'completed_with_errors' then s.status in ({completed_stages}) and j.stage = j.total_stages
    else s.status not in ({open_stages})
  end
