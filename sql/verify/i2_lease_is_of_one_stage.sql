-- I2: a lease is of one claim: no two stages share its id.
select t.lease_id, count(distinct (t.job_id, t.run, t.stage)) as stages
from {schema}.tasks t
where t.status = 'processing'
group by t.lease_id
having count(distinct (t.job_id, t.run, t.stage)) > 1
