-- A job keeps its definition: it has as many stages as that says, and stands at one of them.
select j.job_id, j.run, j.stage, j.total_stages, jsonb_array_length(j.definition -> 'stages') as defined
from {schema}.jobs j
where j.total_stages <> jsonb_array_length(j.definition -> 'stages') or j.stage not between 1 and j.total_stages
  or j.run < 1
