"""Whatever is sent to whatever is described: no fault of ours, and nothing kept of what was refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.muster_process import ControlPlane

_FAST = {
    "MUSTER_GRPC_LISTEN": "none",
    "MUSTER_MODEL": "none",
    "MUSTER_DISCOVER": "false",
    "MUSTER_STOP_TIMEOUT_S": "1",
    "MUSTER_TASK_WAITING_MAX": "100000",
}
_TOKEN = "first-token"
# Live streams do not end, and what makes a token shuts out those who have none.
_ENDLESS = r"/stream$|/events/monitor$|/progress$|/tasks/.*/events$|^/ws/"
_EXAMPLES = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Kept:
    """What the server said that it took."""

    def __init__(self, plane: ControlPlane, headers: dict[str, str]) -> None:
        self.plane = plane
        self.headers = headers
        self.jobs: set[str] = set()
        self.nodes: set[str] = set()

    def note(self, case: Any, answer: Any) -> None:
        if answer.status_code >= 300 or case.method != "POST":
            return
        if case.path in {"/api/jobs", "/v2/tasks"}:
            said = answer.json()
            self.jobs.add(said.get("job_id") or said["task_id"])
        elif case.path == "/api/jobs/batch":
            self.jobs.update(job["job_id"] for job in answer.json()["jobs"])
        elif case.path == "/v2/nodes/register":
            self.nodes.add(answer.json()["node_id"])

    def check(self) -> None:
        jobs = requests.get(f"{self.plane.url}/api/jobs", headers=self.headers, timeout=10).json()
        nodes = requests.get(f"{self.plane.url}/v2/nodes", headers=self.headers, timeout=10).json()
        assert jobs["total"] == len(self.jobs)
        assert {node["node_id"] for node in nodes["nodes"]} <= self.nodes


@pytest.fixture(scope="module", params=["", _TOKEN], ids=["without token", "with token"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder: Path = tmp_path_factory.mktemp("any-input")
    token: str = request.param
    plane = ControlPlane(folder, env=_FAST | ({"MUSTER_TOKEN": token} if token else {}))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        plane.start()
        yield Kept(plane, headers)
    finally:
        plane.kill()


def operations(kept: Kept) -> Iterator[Any]:
    schema = schemathesis.openapi.from_url(f"{kept.plane.url}/openapi.json", headers=kept.headers)
    for operation in schema.exclude(path_regex=_ENDLESS).get_all_operations():
        found: Any = operation.ok()  # type: ignore[union-attr]  # an error would say here what of the description is wrong
        if kept.headers or (found.method, found.path) != ("post", "/api/v1/tokens"):
            yield found


def test_whatever_is_sent_is_answered_and_nothing_breaks(kept: Kept) -> None:
    for operation in operations(kept):

        @_EXAMPLES
        @given(case=operation.as_strategy())
        def send(case: Any) -> None:
            if case.query:
                case.query.pop("follow", None)  # that would not end
            answer = case.call(headers=kept.headers, timeout=10)
            kept.note(case, answer)
            seen = (case.operation.label, answer.status_code, answer.content, answer.headers)
            assert "x-correlation-id" in answer.headers, seen
            if answer.status_code >= 500:
                said = answer.json()
                assert answer.status_code != 500, seen
                assert said.get("code", said.get("error")) not in {None, "internal_error"}, seen

        send()
    kept.check()
