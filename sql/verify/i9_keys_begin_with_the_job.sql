-- I9: every unique key begins with job_id, so that the schema can be distributed by it.
select c.relname as table_name, i.relname as index_name, a.attname as first_column
from pg_index x
join pg_class c on c.oid = x.indrelid
join pg_class i on i.oid = x.indexrelid
join pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
where c.relnamespace = '{schema}'::regnamespace and x.indisunique and a.attname <> 'job_id'
  and exists (
    select 1 from pg_attribute j where j.attrelid = c.oid and j.attname = 'job_id' and not j.attisdropped
  )
