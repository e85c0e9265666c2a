from typing import Any

import typer

from muster.cli.client import Client, Refused, Unreachable
from muster.cli.options import AsJson, DataDir, settings_from
from muster.cli.running import Running, find_running
from muster.cli.tables import ago, print_json, show_facts
from muster.settings import Settings


def status(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Say whether Muster runs on this machine, where, and what it has; exit code 1 when it does not."""
    settings = settings_from(data_dir=data_dir)
    running = find_running(settings.data_path)
    found = _found(running, settings)
    if as_json:
        print_json(found)
    elif running is None:
        print(f"Not running on {settings.data_path}. Start it with: muster up --detach")
    else:
        _show(found)
    if running is None or "problem" in found:
        raise typer.Exit(1)


def _found(running: Running | None, settings: Settings) -> dict[str, Any]:
    if running is None:
        return {"running": False, "data_dir": str(settings.data_path)}
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
    return facts


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
