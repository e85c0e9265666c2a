"""Errors as a sentence with a next step instead of a traceback."""

import os
import sys
import traceback
from collections.abc import Callable

from muster.errors import MusterError


def tell_errors(name: str, act: Callable[[], object]) -> None:
    """Act in the name of the program `name`; an error ends the process."""
    try:
        act()
    except Exception as error:
        if os.environ.get("MUSTER_DEBUG"):
            raise
        problem, next_step = _explain(error)
        print(f"{name}: {problem}", file=sys.stderr)
        if next_step:
            print(f"Next: {next_step}", file=sys.stderr)
        sys.exit(1)


def _explain(error: Exception) -> tuple[str, str | None]:
    if isinstance(error, MusterError):
        return error.message, getattr(error, "next_step", None)
    *_, place = traceback.walk_tb(error.__traceback__)
    where = f"{place[0].f_code.co_filename}:{place[1]}"
    return (
        f"something broke that should not: {type(error).__name__}: {error} ({where})",
        "MUSTER_DEBUG=1 before the command shows how it came to this; please report it",
    )
