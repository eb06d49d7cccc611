#!/bin/sh
# azd runs this before it makes the resources: the database's administrator is whoever deploys, from this address.
set -eu

for command in az azd; do
  if ! command -v "$command" >/dev/null; then
    echo "expected the command $command, found none; install it and sign in" >&2
    exit 1
  fi
done

fail() {
  echo "$1" >&2
  exit 1
}

ask() { # name of the variable, the command that knows its value
  name="$1" && shift
  value="$("$@")" || value=""
  [ -n "$value" ] ||
    fail "$name: expected it from '$*', found nothing; sign in (az login), or run: azd env set $name VALUE"
}

keep() { # name of the variable, its value
  azd env set "$1" "$2"
}

if [ -z "${AZURE_PRINCIPAL_NAME:-}" ]; then
  ask "who is signed in" az account show --query user.type --output tsv
  case "$value" in
    servicePrincipal)
      type=ServicePrincipal
      ask "who is signed in" az account show --query user.name --output tsv
      ask AZURE_PRINCIPAL_NAME az ad sp show --id "$value" --query displayName --output tsv
      ;;
    user)
      type=User
      ask AZURE_PRINCIPAL_NAME az ad signed-in-user show --query userPrincipalName --output tsv
      ;;
    *) fail "expected a user or a servicePrincipal that is signed in, found '$value'; run: az login" ;;
  esac
  # Of a group, or of somebody else, nobody knows the name.
  if [ -n "${AZURE_PRINCIPAL_TYPE:-}" ] && [ "$AZURE_PRINCIPAL_TYPE" != "$type" ]; then
    fail "AZURE_PRINCIPAL_NAME: expected the name of the $AZURE_PRINCIPAL_TYPE, found none ($type is signed in); \
run: azd env set AZURE_PRINCIPAL_NAME NAME"
  fi
  keep AZURE_PRINCIPAL_NAME "$value"
  keep AZURE_PRINCIPAL_TYPE "$type"
fi
case "${PRIVATE_NETWORK:-false}" in
  true | false) ;;
  *) fail "PRIVATE_NETWORK: expected true or false, found '$PRIVATE_NETWORK'; run: azd env set PRIVATE_NETWORK true" ;;
esac
if [ -z "${MIGRATING_ADDRESS:-}" ] && [ "${PRIVATE_NETWORK:-false}" != true ]; then
  ask MIGRATING_ADDRESS curl --silent --fail --max-time 20 https://api.ipify.org
  # A proxy's page is no address, and the firewall of the server has none of IPv6.
  echo "$value" | grep -Eqx '[0-9]{1,3}(\.[0-9]{1,3}){3}' ||
    fail "MIGRATING_ADDRESS: expected an address such as 203.0.113.7, found '$(echo "$value" | head -n 1 | cut -c1-60)'; \
run: azd env set MIGRATING_ADDRESS ADDRESS"
  keep MIGRATING_ADDRESS "$value"
fi
