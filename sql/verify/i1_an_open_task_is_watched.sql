-- I1: while a stage runs, exactly one of its open tasks is watched, so that whoever ends the last one knows it; but for a
-- stage that is marked as unwatched, whose tasks all decide under the exclusive lock.
select s.job_id, s.run, s.stage, count(*) filter (where t.is_watched) as watched, count(*) as open
from {schema}.stages s
join {schema}.tasks t on t.job_id = s.job_id and t.run = s.run and t.stage = s.stage
where s.status = 'processing' and t.status in ({open_tasks})
group by s.job_id, s.run, s.stage, s.is_unwatched
having count(*) filter (where t.is_watched) <> 1 and not s.is_unwatched
