"""Jobs that run a program of the node's file: words without a shell, a directory of their own, an end for certain."""

import asyncio
import re
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from muster.connectors.payload import Checked, read_payload
from muster.connectors.program.cgroup import Cgroup
from muster.connectors.program.config import Program, ProgramCall
from muster.connectors.program.process import Group
from muster.domain.job import ClaimedJob, Progress
from muster.domain.service import Service, ServiceStatus
from muster.errors import MusterError, SetupError, UpstreamFailed, UpstreamTimeout
from muster.ports import JobFiles, ReportProgress

COMMAND = "command"

_RESULT_BYTES_MAX = 8 * 1024 * 1024  # what a worker takes
_PROGRESS = frozenset({"progress", "message"})
_MESSAGE_CHARS_MAX = 500
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


class ProgramFailed(MusterError):
    """It said itself that it failed: it would say so again."""

    code = "program_failed"
    http_status = 502


class ProgramRules(Checked):
    """What a control plane knows, whatever programs the nodes have."""

    name = COMMAND
    provides: tuple[str, ...] = (COMMAND,)
    payload = ProgramCall


class ProgramConnector(ProgramRules):
    """One for each program; attempts run in directories below `root`."""

    needs_service = False

    def __init__(self, program: Program, root: Path) -> None:
        if (problem := program.problem()) is not None:
            raise SetupError(f"program {program.name}: {problem}", next_step="correct the node's file")
        self.name = f"{COMMAND}:{program.name}"
        self.provides = (self.name,)
        self._program = program
        self._root = root

    @property
    def missing(self) -> str | None:
        """Return why it cannot be run here at all."""
        word = self._program.command[0]
        return None if shutil.which(word) else f"there is no program {word!r} on this machine"

    async def probe(self, url: str) -> Service:
        return Service(name=self.name, connector=self.name, status=ServiceStatus.RUNNING, url=url or None)

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:  # noqa: ARG002 - the port's
        program, call = self._program, read_payload(job.spec.payload, ProgramCall)
        values, addresses = program.read_args(call.args)
        with TemporaryDirectory(dir=self._root, prefix="attempt-", ignore_cleanup_errors=True) as folder:
            directory = Path(folder)
            for name, url in addresses.items():
                path = directory / f"{name}-{url.rpartition('/')[2]}"
                await files.get(url, path)
                values[name] = str(path)
            inputs = {path.name for path in _files_in(directory, ("*",))}
            try:
                async with asyncio.timeout(program.timeout_s) as deadline:
                    last = await self._work(job, program.words(values, folder), directory, call.stdin, report)
            except TimeoutError:
                if not deadline.expired():
                    raise
                raise UpstreamTimeout(f"{program.name} did not end within {program.timeout_s:g} s") from None
            result = self._result(directory, last)
            kept = [
                await files.put(path.name, path)
                for path in _files_in(directory, program.keep)
                if path.name not in inputs
            ]
        return {"result": result, "files": kept} if program.keep else result

    async def _work(
        self, job: ClaimedJob, words: list[str], directory: Path, stdin: str | None, report: ReportProgress
    ) -> bytes:
        """Return its last line that was no report of progress."""
        program = self._program
        cgroup = None
        if program.cgroup is not None:
            name = _UNSAFE.sub("_", f"job-{job.spec.job_id}-{job.attempt}")
            cgroup = Cgroup.make(program.cgroup, name, program.limits)
        group = await Group.spawn(words, program.env, directory, program.limits, cgroup, stdin)
        last = b""

        def take(line: bytes) -> None:
            nonlocal last
            if (progress := _progress(line)) is not None:
                report(progress)
            elif line.strip():
                last = line

        try:
            await group.read(program.output_bytes_max, take)
            code = await group.ended()
        finally:
            await group.end(program.stop_s)
        if code != 0:
            raise self._failure(code, group.errors)
        return last

    def _failure(self, code: int, errors: str) -> MusterError:
        said = f": {errors}" if errors else ", and said nothing"
        if code < 0:
            return UpstreamFailed(f"{self._program.name} was ended by {signal.Signals(-code).name}{said}")
        kind = UpstreamFailed if code in self._program.retried_exits else ProgramFailed
        return kind(f"{self._program.name} exited with code {code}{said}")

    def _result(self, directory: Path, last: bytes) -> Any:
        """Return JSON where it is some, else the text; None where nothing was written."""
        name = self._program.result
        if name:
            path = directory / name
            if not path.is_file() or path.is_symlink():
                raise ProgramFailed(f"{self._program.name} wrote no {name}, which is to hold its result")
            if path.stat().st_size > _RESULT_BYTES_MAX:
                raise ProgramFailed(f"{name} has more than {_RESULT_BYTES_MAX} bytes: list it under keep instead")
            last = path.read_bytes()
        text = last.decode(errors="replace").strip()
        try:
            return msgspec.json.decode(text) if text else None
        except msgspec.DecodeError:
            return text


def _files_in(directory: Path, patterns: Sequence[str]) -> list[Path]:
    """Return its files, no links: these may lead anywhere."""
    found = {path for pattern in patterns for path in directory.glob(pattern)}
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _progress(line: bytes) -> Progress | None:
    """Read `{"progress": 0.5, "message": "…"}`; any other line is output."""
    if not line.startswith(b"{"):
        return None
    try:
        told = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not isinstance(told, dict) or not told or not set(told) <= _PROGRESS:
        return None
    fraction, message = told.get("progress"), told.get("message")
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
        fraction = None
    return Progress(fraction=fraction, message=None if message is None else str(message)[:_MESSAGE_CHARS_MAX])
