"""Where in an answer a value stands: keys and numbers with dots, `data.0.status`."""

from typing import Any

from muster.errors import UpstreamFailed


def find(value: Any, path: str) -> Any:
    """Return what stands there; None where nothing does. The empty path is the whole."""
    for part in path.split(".") if path else ():
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def demand(value: Any, path: str, what: str) -> Any:
    found = find(value, path)
    if found is None:
        raise UpstreamFailed(f"{what} has nothing at {path!r}")
    return found
