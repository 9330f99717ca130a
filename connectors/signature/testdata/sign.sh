#!/usr/bin/env bash
# Signs a file and posts it: sign.sh URL FILE, with the secret in PARTNERS_SECRET.
# To send a file again, run it again: the signature is of the time of the attempt.
# Needs bash, curl and openssl. openssl takes the key as an argument, which other
# users of this machine can see while it runs: use sign.py or sign.mjs on shared ones.
set -euo pipefail
url=$1 file=$2

id=msg_$(openssl rand -hex 16)
timestamp=$(date +%s)
key=$(printf %s "${PARTNERS_SECRET#whsec_}" |
  openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
signature=$({ printf '%s.%s.' "$id" "$timestamp"; cat "$file"; } |
  openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)

curl -sS --fail-with-body "$url" \
  -H 'content-type: application/json' \
  -H "webhook-id: $id" \
  -H "webhook-timestamp: $timestamp" \
  -H "webhook-signature: v1,$signature" \
  --data-binary "@$file"
