// Package signature signs and verifies requests by Standard Webhooks 1.0.0
// (https://www.standardwebhooks.com), with symmetric secrets and their rotation.
// Merchant backends sign the events that they post; the gateway verifies them.
//
// # Promises
//
//   - A request passes only if an active secret of its workspace signed exactly its
//     webhook-id, webhook-timestamp and body, within five minutes of the verifier's
//     clock.
//   - A client without a secret of a workspace learns nothing about it. The form of the
//     headers is checked first, without looking at the workspace; then the signature,
//     where an unknown workspace is refused with the same error after the same number
//     of MACs as a known one; the clock last, so that only a genuine signer learns that
//     a timestamp is stale or in the future.
//   - Detail says in one sentence which header is wrong and how, for its sender alone: it
//     depends on the headers, not on the workspace.
//   - A secret is in no error, no formatted value and no log line; its KeyID names it.
//   - No input panics, and a body is read but never copied.
//
// It does not remember webhook ids: within the tolerance a captured request can be sent
// again. That does not harm events, whose event_id is the idempotency key. The
// signature does not cover the URL: give every workspace its own secrets, or a request
// signed for one passes verification at another that shares the secret.
//
// # Rotation
//
// A workspace may have up to eight active secrets, one a line in its file. To rotate
// without a refused event, add the new secret below the old one, let the merchant
// change over, and remove the old line when Uses (a metric of pipeline/token) no longer
// sees it. The owner of the Keyring calls Reload every now and then. A sender can also
// sign with both for a while: webhook-signature holds up to ten signatures, and one
// match is enough.
//
// # Shape
//
// Secret is one key. Keyring holds all secrets of a directory; Reload looks at it again,
// file by file. Verify parses the headers, looks for a matching MAC, and checks the
// clock. fault.go has the sentences about what it refuses.
//
// The package is our own because the Standard Webhooks project's Go library takes no
// clock, makes a key from an empty secret or one without prefix, sets no limit on
// signatures, accepts several spellings of a timestamp, and copies the body three times
// per secret (a batch of 1 MB: 3.2 MB and 2.0 ms a secret against 0.5 kB and 0.6 ms
// here). The tests use it as the reference, in both directions.
//
// # Signing from elsewhere
//
// testdata holds complete senders that the tests run against Verify: sign.sh (curl and
// openssl), sign.mjs (Node) and sign.py (Python). Their core, in shell:
//
//	key=$(printf %s "${PARTNERS_SECRET#whsec_}" |
//	  openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
//	signature=$({ printf '%s.%s.' "$id" "$timestamp"; cat "$file"; } |
//	  openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)
//
// in Node:
//
//	const key = Buffer.from(process.env.PARTNERS_SECRET.replace(/^whsec_/, ""), "base64");
//	const signature = createHmac("sha256", key)
//	  .update(`${id}.${timestamp}.`).update(body).digest("base64");
//
// and in Python:
//
//	key = base64.b64decode(os.environ["PARTNERS_SECRET"].removeprefix("whsec_"))
//	signed = f"{message_id}.{timestamp}.".encode() + body
//	signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
//
// The header is then "webhook-signature: v1,$signature". The usual mistakes are to sign
// a parsed and re-serialised body instead of the bytes sent, to use the text of the
// secret as key instead of its decoded bytes, and to give the timestamp in
// milliseconds.
package signature
