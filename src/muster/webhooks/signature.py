"""Signed as Standard Webhooks has it: HMAC-SHA256 over id, time and body, with the secret that was shown once."""

import base64
import hmac

from muster.webhooks.wanted import SECRET_PREFIX

ID = "webhook-id"
TIMESTAMP = "webhook-timestamp"
SIGNATURE = "webhook-signature"


def signature_of(secret: str, delivery_id: str, timestamp_s: int, body: bytes) -> str:
    signed = b"%b.%d.%b" % (delivery_id.encode(), timestamp_s, body)
    return f"v1,{base64.b64encode(hmac.digest(_key(secret), signed, 'sha256')).decode()}"


def headers_of(secret: str, delivery_id: str, now_ms: int, body: bytes) -> dict[str, str]:
    timestamp_s = now_ms // 1000
    return {
        ID: delivery_id,
        TIMESTAMP: str(timestamp_s),
        SIGNATURE: signature_of(secret, delivery_id, timestamp_s, body),
    }


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
