-- These take who asked, and what a submission could not check: without this, the calls of before would be ambiguous.
drop function if exists {schema}.submit_job(text, text, jsonb, jsonb, text, text, text, text, text);
drop function if exists {schema}.insert_job(text, text, jsonb, jsonb, text, text, text);
drop function if exists {schema}.resolve_dead_letters(bigint[], text);
