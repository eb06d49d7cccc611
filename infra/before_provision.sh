#!/bin/sh
# azd runs this before it makes the resources: the database's administrator is whoever deploys, from this address.
set -eu

ask() { # name of the variable, the command that knows its value
  name="$1" && shift
  value="$("$@")" || value=""
  if [ -z "$value" ]; then
    echo "$name: expected it from '$*', found nothing; sign in (az login), or run: azd env set $name VALUE" >&2
    exit 1
  fi
  azd env set "$name" "$value"
}

kind="$(az account show --query user.type --output tsv)"
if [ -z "${AZURE_PRINCIPAL_NAME:-}" ]; then
  if [ "$kind" = servicePrincipal ]; then
    id="$(az account show --query user.name --output tsv)"
    ask AZURE_PRINCIPAL_NAME az ad sp show --id "$id" --query displayName --output tsv
    azd env set AZURE_PRINCIPAL_TYPE ServicePrincipal
  else
    ask AZURE_PRINCIPAL_NAME az ad signed-in-user show --query userPrincipalName --output tsv
    azd env set AZURE_PRINCIPAL_TYPE User
  fi
fi
if [ -z "${MIGRATING_ADDRESS:-}" ] && [ "${PRIVATE_NETWORK:-false}" != true ]; then
  ask MIGRATING_ADDRESS curl --silent --fail --max-time 20 https://api.ipify.org
fi
