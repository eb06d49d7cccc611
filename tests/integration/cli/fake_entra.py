"""What Azure's PostgreSQL has and others lack, as far as `coremachine db grant --entra` uses it."""

ENTRA_FUNCTION = """
create function pg_catalog.pgaadauth_create_principal(name text, is_admin boolean, is_mfa boolean) returns text
language plpgsql as $$
begin
  execute format('create role %I login', name);
  return format('Created role for %I', name);
end $$
"""
