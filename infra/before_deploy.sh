#!/bin/sh
# azd runs this before it deploys code: the schema of this release, and the rights of the apps' identities.
# Needs `coremachine` of the release that is deployed, and az, signed in as the database's administrator.
# Of this environment: COREMACHINE_SCHEMA, if `settings` of the parameters names another one than `app`.
set -euf

for name in DATABASE_HOST DATABASE_ADMINISTRATOR DATABASE_ROLES; do
  eval "value=\${$name:-}"
  if [ -z "$value" ]; then
    echo "$name: expected a value of this azd environment, found none; run: azd provision" >&2
    exit 1
  fi
done
if ! command -v coremachine >/dev/null; then
  echo "expected the command coremachine, found none; activate the project's virtual environment" >&2
  exit 1
fi
if ! command -v az >/dev/null; then
  echo "expected the command az, found none; install the Azure CLI and run: az login" >&2
  exit 1
fi

# libpq reads these. The token is the password: nothing else decides how to sign in.
PGPASSWORD="$(az account get-access-token --resource-type oss-rdbms --query accessToken --output tsv)"
if [ -z "$PGPASSWORD" ]; then
  echo "expected a token for the database from az, found none; sign in as $DATABASE_ADMINISTRATOR: az login" >&2
  exit 1
fi
PGHOST="$DATABASE_HOST" PGUSER="$DATABASE_ADMINISTRATOR" PGSSLMODE="${PGSSLMODE:-require}"
COREMACHINE_DATABASE_URL="dbname=coremachine"
export PGPASSWORD PGHOST PGUSER PGSSLMODE COREMACHINE_DATABASE_URL
unset COREMACHINE_DATABASE_AUTH COREMACHINE_DATABASE_CLIENT_ID

coremachine db migrate
for role in $DATABASE_ROLES; do
  coremachine db grant "$role" --entra
done
