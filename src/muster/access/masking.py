"""What must not be read in logs is made unreadable, whoever wrote it there."""

import re

_OURS = re.compile(r"(mst_[0-9a-z]+_)[0-9A-Za-z]+")
_SHOWN = re.compile(r"(\bbearer[ +]|[?&]token=)(?!mst_)[^\s&\"'`,;]+", re.IGNORECASE)
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'`]{0,256}:)[^\s/\"'`]{1,256}(?=@)", re.IGNORECASE)
_NAMED = re.compile(
    r"((?:api[_-]?key|secret|password|passwd)[\"']?\s*[=:]\s*[\"']?|_TOKEN=)(?!mst_|\*\*\*)[^\s&\"'`,;]+", re.IGNORECASE
)
_OTHERS = re.compile(r"\b(hf_|sk-)[0-9A-Za-z_-]{16,}")
_SIGNS = ("mst_", "bearer", "token=", "://", "key", "secret", "passw", "hf_", "sk-")  # most lines have none
_MASK = r"\1***"


def mask(text: str) -> str:
    """Leave a token's id, by which it can be found and revoked, and nothing of its secret."""
    lowered = text.lower()
    if not any(sign in lowered for sign in _SIGNS):
        return text
    for secret in (_OURS, _SHOWN, _IN_URL, _NAMED, _OTHERS):
        text = secret.sub(_MASK, text)
    return text
