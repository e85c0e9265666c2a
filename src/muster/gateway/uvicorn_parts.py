"""What serves here of uvicorn, loaded without its command line, which takes click, multiprocessing and more along.

That is 2 MB. Where it is not as it was, all of uvicorn is loaded.
"""

import contextlib
import importlib
import sys
from types import ModuleType


def _load_uvicorn() -> None:
    if "uvicorn" in sys.modules:
        return
    stand_in = ModuleType("uvicorn.main")
    vars(stand_in).update(dict.fromkeys(("Server", "main", "run")))
    sys.modules[stand_in.__name__] = stand_in
    with contextlib.suppress(ImportError):
        importlib.import_module("uvicorn")
    del sys.modules[stand_in.__name__]


_load_uvicorn()

from uvicorn import Config  # noqa: E402 - now that it has been loaded so
from uvicorn.lifespan.on import LifespanOn  # noqa: E402 - likewise
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: E402 - likewise
from uvicorn.server import ServerState  # noqa: E402 - likewise

__all__ = ["Config", "HttpToolsProtocol", "LifespanOn", "ServerState"]
