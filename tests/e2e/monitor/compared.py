"""What a page holds beside what the control plane holds."""

from typing import Any

from playwright.async_api import Page

from tests.integration.api.conftest import Served

_PASSING = {"last_seen", "uptime_seconds"}  # move on with each beat, without any event
_HELD = """async () => {
  const { state } = await import("/web/core/state.js");
  const open = new Set(["pending", "unworkable", "assigned", "in_progress"]);
  const jobs = [...state.jobs.values()].map((job) => job.peek());
  return {
    nodes: Object.fromEntries([...state.nodes].map(([id, node]) => [id, node.peek()])),
    counts: state.jobCounts.peek(),
    open: Object.fromEntries(jobs.filter((job) => open.has(job.status)).map((job) => [job.job_id, job.status])),
  };
}"""


async def on_the_page(page: Page) -> dict[str, Any]:
    held: dict[str, Any] = await page.evaluate(_HELD)
    for node in held["nodes"].values():
        node["machine"] = _lasting(node["machine"])
    return held


async def at_the_server(served: Served) -> dict[str, Any]:
    async with served.client.get("/api/monitor/state?limit=1000") as answer:
        data = (await answer.json())["data"]
    counts = data["system_stats"]["jobs"]
    nodes: dict[str, Any] = {m["machine_id"]: {"machine": _lasting(m), "workers": []} for m in data["machines"]}
    for worker in data["workers"]:
        nodes[worker["machine_id"]]["workers"].append(worker)
    return {
        "nodes": nodes,
        "counts": {
            "waiting": counts["pending"] + counts["unworkable"],
            "running": counts["assigned"] + counts["in_progress"],
            "failed": counts["failed"] + counts["timeout"],
            "finished": counts["completed"] + counts["cancelled"],
        },
        "open": {job["job_id"]: job["status"] for job in data["jobs"]["pending"] + data["jobs"]["active"]},
    }


def _lasting(machine: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in machine.items() if name not in _PASSING}


async def are_equal(page: Page, served: Served) -> bool:
    return await on_the_page(page) == await at_the_server(served)
