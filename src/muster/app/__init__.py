"""The composition root: the only place that knows which adapter serves which port."""

import importlib
import sys
from types import ModuleType
from typing import cast


def _load_structlog() -> None:
    """Load it without Rich, which it takes along where it finds it: 5 MB, for tracebacks that we never show."""
    if "rich" in sys.modules:
        return
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    modules["rich"] = None  # in the words of Python: it cannot be imported
    try:
        importlib.import_module("structlog")
    finally:
        del modules["rich"]


_load_structlog()
