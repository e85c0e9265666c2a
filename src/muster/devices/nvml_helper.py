"""`python -m muster.devices.nvml_helper`: reads the GPUs once for each line it gets, and answers with a line of JSON.

A process of its own, because nothing ends a call that hangs in a driver but the end of its process.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

from msgspec import Struct, json

from muster.devices.nvml_reader import NvmlReader
from muster.domain.gpu import Gpu


class Answer(Struct, frozen=True, omit_defaults=True):
    """`absent` says why there is nothing to be read; the helper ends after it, and a new one begins afresh."""

    gpus: tuple[Gpu, ...] = ()
    absent: str | None = None


def serve(load_library: Callable[[], Any], asked: Iterable[bytes], out: BinaryIO) -> None:
    """Answer until nobody asks any more, or there is nothing to read."""
    reader: NvmlReader | None = None
    for _ in asked:
        try:
            reader = reader or NvmlReader(load_library())
            answer = Answer(reader.read())
        except Exception as error:  # noqa: BLE001 - whatever the reason: this machine has no GPU that we could read
            answer = Answer(absent=str(error) or type(error).__name__)
        out.write(json.encode(answer) + b"\n")
        out.flush()
        if answer.absent is not None:
            return


def _load_pynvml() -> Any:
    import pynvml

    return pynvml


if __name__ == "__main__":
    serve(_load_pynvml, sys.stdin.buffer, sys.stdout.buffer)
