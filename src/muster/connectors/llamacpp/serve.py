"""llama.cpp's server as a process of its own: `python -m muster.connectors.llamacpp.serve --model FILE --port N`.

SIGTERM ends it with code 0. What keeps it from starting is one sentence on stderr and a code of `Exit`.
"""

import argparse
import math
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from muster.connectors.llamacpp.gguf import NotGguf, read_facts

# A thread serves each open connection, idle ones too: with llama.cpp's own number (a few above the slots) a queue of
# requests keeps its /health from answering.
_SPARE_HTTP_THREADS = 64
_PROMPT_CACHE_MB = 512  # kept prompts, in main memory; llama.cpp's own limit is 8 GB
_EMBEDDING_TOKENS_MAX = 2048  # an embedding's input must fit in one batch, for which memory is set aside
_ERRORS_ONLY, _INFO = 1, 3


class Exit(IntEnum):
    """Exit codes; all but FAILED will come again at each start."""

    FAILED = 1
    USAGE = 2  # argparse's own
    NO_ENGINE = 3
    BAD_MODEL = 4
    PORT_TAKEN = 5


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    engine = _import_engine()
    facts = _read_model(options.model)
    _check_port(options.host, options.port)
    try:
        server = engine.Server(_parameters(engine, options, facts))
    except RuntimeError:
        _check_port(options.host, options.port)  # somebody may have taken it meanwhile
        _fail(Exit.BAD_MODEL, f"llama.cpp cannot load {options.model}; its own lines beside this one say why")
    _say(f"serving {options.alias or options.model.stem} at {server.listening_address}")
    for sig in (signal.SIGTERM, signal.SIGINT):  # until here they end the process as ever: it loads, nobody is served
        signal.signal(sig, _stop)
    while True:
        signal.pause()


def _stop(_signal: int, _frame: FrameType | None) -> None:
    """End at once: llama.cpp's own way waits until each stream has something to say, up to half a minute."""
    os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m muster.connectors.llamacpp.serve", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True, help="a .gguf file")
    parser.add_argument("--alias", help="the name under which the model is offered; by default the file's stem")
    parser.add_argument("--slots", type=_positive, default=4, help="parallel requests")
    parser.add_argument("--ctx-per-slot", type=_positive, default=4096, help="tokens of context for each slot")
    parser.add_argument("--threads", type=_positive, help="by default as many as there are cores")
    parser.add_argument(
        "--embedding",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="offer embeddings too: chats lose nothing",
    )
    parser.add_argument("--gpu-layers", type=int, help="layers kept on the GPU; by default as many as fit")
    parser.add_argument("--verbose", action="store_true", help="say more than errors")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _import_engine() -> Any:
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # after an abort it would start a debugger, if there is one
    try:
        import xllamacpp  # noqa: PLC0415 - an extra: its absence has an answer of its own
    except ImportError as error:
        _fail(Exit.NO_ENGINE, f"llama.cpp cannot be loaded ({error}): pip install 'muster[llamacpp]'")
    return xllamacpp


def _read_model(path: Path) -> dict[str, Any]:
    try:
        return read_facts(path)
    except NotGguf as error:
        _fail(Exit.BAD_MODEL, f"{error}; give a model in that format")
    except OSError as error:
        _fail(Exit.BAD_MODEL, f"cannot read the model {path}: {error.strerror}")


def _check_port(host: str, port: int) -> None:
    """Say so before minutes of loading, for the engine would only then, and not which port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            _fail(Exit.PORT_TAKEN, f"cannot listen on {host}:{port}: {error.strerror}")


def _parameters(engine: Any, options: argparse.Namespace, facts: dict[str, Any]) -> Any:
    wanted = engine.CommonParams()
    wanted.verbosity = _INFO if options.verbose else _ERRORS_ONLY
    wanted.hostnames = [options.host]
    wanted.port = options.port
    wanted.model.path = str(options.model)
    wanted.model_alias = {options.alias or options.model.stem}
    wanted.n_parallel = options.slots
    wanted.n_ctx = options.slots * options.ctx_per_slot
    wanted.n_threads_http = options.slots + _SPARE_HTTP_THREADS
    wanted.cache_ram_mib = _PROMPT_CACHE_MB
    wanted.endpoint_slots = wanted.endpoint_metrics = True
    wanted.ui = False
    wanted.cors_origins = ""  # no page in anybody's browser is to use this machine
    if options.threads is not None:
        wanted.cpuparams.n_threads = options.threads
    if options.gpu_layers is not None:
        wanted.n_gpu_layers = options.gpu_layers
    if options.embedding:
        wanted.embedding = True
        # llama.cpp shares a batch evenly among the slots when it measures what it needs, and aborts on a remainder.
        each = math.ceil(min(options.ctx_per_slot, _EMBEDDING_TOKENS_MAX) / options.slots)
        wanted.n_batch = wanted.n_ubatch = each * options.slots
        if f"{facts.get('general.architecture')}.pooling_type" not in facts:  # one made for embeddings knows its own
            wanted.pooling_type = engine.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return wanted


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()


def _fail(code: Exit, sentence: str) -> NoReturn:
    _say(f"error: {sentence}")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
