"""Signs a file and posts it: python3 sign.py URL FILE, with the secret in PARTNERS_SECRET.

To send a file again, run it again: the signature is of the time of the attempt.
Needs Python 3.9 or newer and no packages.
"""
import base64
import hashlib
import hmac
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

url, file = sys.argv[1:]
with open(file, "rb") as f:
    body = f.read()  # sign and send the same bytes

message_id = f"msg_{uuid.uuid4()}"
timestamp = str(int(time.time()))
key = base64.b64decode(os.environ["PARTNERS_SECRET"].removeprefix("whsec_"))
signed = f"{message_id}.{timestamp}.".encode() + body
signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()

request = urllib.request.Request(url, data=body, headers={
    "content-type": "application/json",
    "webhook-id": message_id,
    "webhook-timestamp": timestamp,
    "webhook-signature": f"v1,{signature}",
})
try:
    with urllib.request.urlopen(request) as response:
        print(response.read().decode())
except urllib.error.HTTPError as error:
    sys.exit(error.read().decode())
