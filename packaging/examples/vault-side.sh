#!/bin/sh
# Vault's side of vaulttmpfs, for an administrator of Vault: what README.md says about it. Here pods may have the policy `web`.
set -eu

vault policy write web - <<'HCL'
path "secret/web" { capabilities = ["read"] }
HCL

vault write auth/token/roles/applications \
    orphan=true renewable=true period=24h allowed_policies=web

vault policy write applications_token_creator - <<'HCL'
# Wrapped tokens only: who steals the generator token gets no plain token in one step.
path "auth/token/create/applications" {
  capabilities     = ["update"]
  min_wrapping_ttl = "1s"
  max_wrapping_ttl = "10m"
}
# For pods that name no policies, and for vault/ttl and vault/maxTTL.
path "auth/token/roles/applications"  { capabilities = ["read"] }
# Keeping pods' tokens alive, ending them, and one look whether they were unwrapped.
path "auth/token/renew-accessor"      { capabilities = ["update"] }
path "auth/token/revoke-accessor"     { capabilities = ["update"] }
path "auth/token/lookup-accessor"     { capabilities = ["update"] }
HCL

# Only where some pods cannot unwrap.
vault write auth/token/roles/applications-unwrapped \
    orphan=true renewable=true period=24h allowed_policies=web

vault policy write applications_unwrapped_token_creator - <<'HCL'
path "auth/token/create/applications-unwrapped" { capabilities = ["update"] }
path "auth/token/roles/applications-unwrapped"  { capabilities = ["read"] }
HCL
