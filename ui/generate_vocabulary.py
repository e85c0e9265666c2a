#!/usr/bin/env python3
"""Write the monitor's words (src/muster/web/core/vocabulary.js) from the server's enums: the two cannot drift apart.

With --check nothing is written; the exit status is 1 when the file differs from what would be.
"""

import json
import sys
from enum import StrEnum
from pathlib import Path

from muster.access.roles import Role
from muster.domain.job import ACTIVE, TERMINAL, JobStatus
from muster.domain.node import Health, Phase
from muster.domain.service import ServiceStatus
from muster.domain.worker import WorkerStatus

TARGET = Path(__file__).resolve().parent.parent / "src" / "muster" / "web" / "core" / "vocabulary.js"

HEADER = "// Made by ui/generate_vocabulary.py from the server's enums; run it again instead of editing.\n"

ENUMS: dict[str, type[StrEnum]] = {
    "HEALTH": Health,
    "PHASE": Phase,
    "WORKER_STATUS": WorkerStatus,
    "SERVICE_STATUS": ServiceStatus,
    "JOB_STATUS": JobStatus,
    "ROLE": Role,
}
JOB_SETS = {"JOB_ACTIVE": ACTIVE, "JOB_TERMINAL": TERMINAL}


def render() -> str:
    parts = [HEADER]
    for name, enum in ENUMS.items():
        words = json.dumps([member.value for member in enum])
        parts.append(
            f"\n/** @typedef {{typeof {name}[number]}} {enum.__name__} */\n"
            f"export const {name} = /** @type {{const}} */ ({words});\n"
        )
    for name, members in JOB_SETS.items():
        words = json.dumps([status.value for status in JobStatus if status in members])
        parts.append(f"\n/** @type {{ReadonlySet<string>}} */\nexport const {name} = new Set({words});\n")
    return "".join(parts)


def main(arguments: list[str]) -> str | None:
    """Return what went wrong, for sys.exit."""
    text = render()
    if arguments != ["--check"]:
        TARGET.write_text(text, "utf-8")
        return None
    if TARGET.is_file() and TARGET.read_text("utf-8") == text:
        return None
    return f"{TARGET} differs from the server's enums: run {Path(sys.argv[0])}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
