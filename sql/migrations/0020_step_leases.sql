-- A process that plans a stage or makes a summary for long leaves a sign of life in its job's row.
alter table {schema}."jobs" add column "step_lease" jsonb;
