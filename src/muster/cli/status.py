from typing import Any

import typer
from msgspec import to_builtins

from muster.cli.client import Client, Refused, Unreachable
from muster.cli.detached import own_node
from muster.cli.machine_part import MachinePart, find_machine
from muster.cli.options import AsJson, DataDir, settings_from
from muster.cli.parts import running_parts, stopped_parts
from muster.cli.running import Running, find_running
from muster.cli.tables import Column, ago, print_json, show_facts, show_rows
from muster.settings import Settings

_COLUMNS = (
    Column("part", lambda part: part["name"]),
    Column("status", lambda part: part["status"]),
    Column("pid", lambda part: part["pid"]),
    Column("address", lambda part: part["address"]),
    Column("since", lambda part: ago(part["started_at_ms"])),
    Column("log", lambda part: part["log"]),
    Column("", lambda part: part["about"]),
)


def status(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Say whether Muster runs on this machine, where, and what it has; exit code 1 when it does not."""
    settings = settings_from(data_dir=data_dir)
    running = find_running(settings.data_path)
    found = _found(running, settings)
    if as_json:
        print_json(found)
        if running is None or "problem" in found:
            raise typer.Exit(1)
        return
    if running is None:
        print(f"Not running on {settings.data_path}. Start it with: muster up --detach")
    else:
        _show(found)
    show_rows(found["parts"], _COLUMNS, empty="")
    if running is None or "problem" in found:
        raise typer.Exit(1)


def _found(running: Running | None, settings: Settings) -> dict[str, Any]:
    if running is None:
        return {"running": False, "data_dir": str(settings.data_path), "parts": to_builtins(stopped_parts())}
    facts: dict[str, Any] = {
        "running": True,
        "pid": running.pid,
        "version": running.version,
        "urls": list(running.urls),
        "grpc": running.grpc,
        "started_at_ms": running.started_at_ms,
        "data_dir": str(settings.data_path),
        "log": running.log,
    }
    client = Client.at(running.url, settings)
    try:
        facts["stats"] = client.get("/api/v1/stats")
        facts["models"] = [model["name"] for model in client.get("/api/v1/models", served="true")]
    except (Unreachable, Refused) as error:
        facts["problem"] = f"{error.message}: {error.next_step}" if error.next_step else error.message
    machine = find_machine(settings.data_path)
    facts["parts"] = to_builtins(running_parts(running, machine, _own_node(client, machine), settings.data_path))
    return facts


def _own_node(client: Client, machine: MachinePart | None) -> dict[str, Any] | None:
    try:
        return own_node(client, machine)
    except (Unreachable, Refused):
        return None


def _show(found: dict[str, Any]) -> None:
    stats = found.get("stats") or {}
    jobs = ", ".join(f"{count} {name}" for name, count in (stats.get("jobs") or {}).items() if count)
    url = found["urls"][0]
    show_facts(
        [
            ("running", f"yes, started {ago(found['started_at_ms'])} (pid {found['pid']}, version {found['version']})"),
            ("problem", found.get("problem")),
            ("monitor", f"{url}/"),
            ("OpenAI API", f"{url}/v1"),
            ("Ollama API", url),
            ("also at", found["urls"][1:] or None),
            ("gRPC", found["grpc"] or "not served"),
            ("nodes", f"{stats['healthy_nodes']} of {stats['total_nodes']} healthy" if stats else None),
            ("models", (found["models"] or "none yet") if "models" in found else None),
            ("jobs", (jobs or "none") if stats else None),
            ("data", found["data_dir"]),
            ("log", found["log"]),
        ]
    )
