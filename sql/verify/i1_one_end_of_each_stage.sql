-- I1: a stage ends once in each run: its completion stands in the timeline at most once.
select e.job_id, e.run, e.stage, count(*) as ends
from {schema}.job_events e
where e.event in ('stage_completed', 'stage_completed_with_errors')
group by e.job_id, e.run, e.stage
having count(*) > 1
