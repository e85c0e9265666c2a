"""The control plane's errors, made anew on the agent's side of every link."""

import json
from typing import TypeGuard

from muster import errors
from muster.errors import MusterError, SetupError


def _is_told(kind: object) -> TypeGuard[type[MusterError]]:
    """Whether a control plane may answer with this error; what only a person at the keyboard can mend, it does not."""
    return isinstance(kind, type) and issubclass(kind, MusterError) and kind not in {MusterError, SetupError}


# A fault inside the control plane (`internal_error`) is left out: to an agent it is a failure that may pass.
_CLASSES = {kind.code: kind for kind in vars(errors).values() if _is_told(kind)}


def error_told(body: bytes) -> MusterError | None:
    """Return the error that `MusterError.to_dict` was written of; None where these are not a control plane's words."""
    try:
        told = json.loads(body)
        kind = _CLASSES[told.pop("code")]
        message = str(told.pop("message"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    told.pop("retriable", None)
    field, retry_after_ms = told.pop("field", None), told.pop("retry_after_ms", None)
    retry_after_s = retry_after_ms / 1000 if isinstance(retry_after_ms, int | float) else None
    error = kind(message, field=field, retry_after_s=retry_after_s)
    error.data = told
    return error
