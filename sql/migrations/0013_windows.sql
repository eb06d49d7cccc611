-- Large stages are announced in windows.
alter table {schema}."stages"
  add column "window_after" text collate "C",
  add column "window_from" text collate "C",
  add column "window_size" integer,
  add column "window_open" integer,
  add column "window_at" timestamptz;

alter table {schema}."tasks" add column "is_windowed" boolean not null default false;

-- The rows that wait for their turn are not among those that want a message.
drop index {schema}."tasks_unannounced";

create index "tasks_unannounced" on {schema}."tasks" ("created_at") where status in ('pending') and not "is_windowed";
