"""Programs that the node's own file lets a command run by name: no shell, no other words than it allows, a bound."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from muster.agent.services.process import command_problem
from muster.errors import Forbidden, InvalidInput, UpstreamFailed
from muster.ports import ReportProgress
from muster.system import die_with_parent, own_environment

ARGS = "{args}"  # where a program takes the words that come with the command
_OUTPUT_BYTES_MAX = 32_768
_CHUNK_BYTES = 8_192


class AllowedPrograms:
    def __init__(self, programs: Mapping[str, Sequence[str]], directory: Path) -> None:
        self._programs = programs
        self._directory = directory

    async def run(self, args: dict[str, Any], _: ReportProgress) -> dict[str, Any]:
        """Return exit code and output; who waits no longer ends the program and all that it started."""
        command = self._command(args["name"], args.get("args", []))
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=own_environment(),
                cwd=self._directory,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        except OSError as error:
            raise UpstreamFailed(command_problem(error, command)) from None
        try:
            output, is_cut = await _first_bytes(process.stdout) if process.stdout else (b"", False)
            code = await process.wait()
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        return {"exit_code": code, "output": output.decode(errors="replace"), "output_cut": is_cut}

    def _command(self, name: str, words: list[str]) -> list[str]:
        program = self._programs.get(name)
        if program is None:
            allowed = f"it allows {', '.join(sorted(self._programs))}" if self._programs else "it allows nothing"
            raise Forbidden(f"this node's file does not allow {name!r} under [commands]; {allowed}")
        if words and ARGS not in program:
            raise InvalidInput(f"{name} takes no further words: its entry in the node's file has no {ARGS}")
        return [word for part in program for word in (words if part == ARGS else [part])]


async def _first_bytes(stream: asyncio.StreamReader) -> tuple[bytes, bool]:
    """Return the beginning of what it writes, and whether there was more; all is read, so that it can go on."""
    kept, total = bytearray(), 0
    while chunk := await stream.read(_CHUNK_BYTES):
        total += len(chunk)
        kept += chunk[: _OUTPUT_BYTES_MAX - len(kept)]
    return bytes(kept), total > _OUTPUT_BYTES_MAX
