"""Which trace something belongs to: W3C Trace Context, as it is passed on in `traceparent`."""

import re

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")


def traceparent_in(text: str | None) -> str | None:
    """Return it if it is one; what is not is left out, as the specification has it."""
    return text if text is not None and _TRACEPARENT.match(text) else None
