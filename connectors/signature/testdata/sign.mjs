// Signs a file and posts it: node sign.mjs URL FILE, with the secret in PARTNERS_SECRET.
// To send a file again, run it again: the signature is of the time of the attempt.
// Needs Node 18 or newer and no packages.
import { createHmac, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

const [url, file] = process.argv.slice(2);
const body = readFileSync(file); // sign and send the same bytes

const id = `msg_${randomUUID()}`;
const timestamp = Math.floor(Date.now() / 1000);
const key = Buffer.from(process.env.PARTNERS_SECRET.replace(/^whsec_/, ""), "base64");
const signature = createHmac("sha256", key)
  .update(`${id}.${timestamp}.`).update(body).digest("base64");

const response = await fetch(url, {
  method: "POST",
  headers: {
    "content-type": "application/json",
    "webhook-id": id,
    "webhook-timestamp": String(timestamp),
    "webhook-signature": `v1,${signature}`,
  },
  body,
});
console.log(await response.text());
process.exitCode = response.ok ? 0 : 1;
