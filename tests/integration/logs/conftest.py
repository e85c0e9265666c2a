"""A control plane with an agent on each kind of link, every one with a service that says what it is told."""

import http.client
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import pytest

from tests.integration.logs import talker
from tests.muster_process import ControlPlane, MusterProcess, free_port
from tests.waiting import eventually_sync

LINKS = ("http", "grpc")
_QUICK = {
    "MUSTER_MODEL": "none",
    "MUSTER_DISCOVER": "false",
    "MUSTER_HEARTBEAT_INTERVAL_S": "1",
    "MUSTER_STOP_TIMEOUT_S": "1",
}
_NODE_FILE = f"""
[[service]]
name = "talker"
connector = "vllm"
command = ["{{python}}", "{Path(talker.__file__)}", "{{port}}"]
"""


class Follower:
    """Who follows logs through the API, by a thread of his own."""

    def __init__(self, url: str, **query: Any) -> None:
        self.rows: list[dict[str, Any]] = []
        self.ended = threading.Event()
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        self._connection.request("GET", "/api/v1/logs?" + urlencode(query | {"follow": "true"}, doseq=True))
        self._socket = self._connection.sock
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._answer.close()

    def _read(self) -> None:
        try:
            for line in self._answer:
                if line.startswith(b"data: "):
                    self.rows.append(json.loads(line[6:]))
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            pass
        self.ended.set()

    @property
    def texts(self) -> list[str]:
        return [row["text"] for row in self.rows if "text" in row]

    @property
    def notes(self) -> list[str]:
        return [row["note"] for row in self.rows if "note" in row]


class Site:
    def __init__(self, folder: Path, plane: ControlPlane) -> None:
        self.folder = folder
        self.plane = plane
        self.agents: dict[str, MusterProcess] = {}

    def start_agent(self, link: str, **env: str) -> MusterProcess:
        folder = self.folder / link
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "node.toml").write_text(_NODE_FILE)
        settings = {"MUSTER_NODE_ID": link, "MUSTER_NODE_FILE": "node.toml", "MUSTER_DATA_DIR": str(folder / "data")}
        self.agents[link] = MusterProcess(folder, "agent", env=_QUICK | settings | env)
        return self.agents[link].start()

    def say(self, link: str, text: str | bytes, path: str = "/say") -> None:
        data = text.encode() if isinstance(text, str) else text
        urllib.request.urlopen(self.service_url(link) + path, data=data, timeout=30).close()

    def service_url(self, link: str) -> str:
        services = self.plane.get(f"/api/v1/nodes/{link}")["services"]
        assert [service["status"] for service in services] == ["running"]
        return str(services[0]["url"])

    def lines(self, path: str, **query: Any) -> list[str]:
        url = f"{self.plane.url}{path}?{urlencode(query, doseq=True)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return list(answer.read().decode().splitlines())

    def follow(self, *links: str) -> Follower:
        """Follow the services of these nodes; return once all of them are heard."""
        following = Follower(self.plane.url, source=[f"{link}/talker" for link in links], tail=0)
        for link in links:

            def heard(link: str = link) -> bool:
                self.say(link, "mark\n")
                return any(row["node_id"] == link for row in following.rows)

            eventually_sync(heard)
        return following

    def hears(self, link: str) -> bool:
        """Whether the service of this node is there and told to say something: raises OSError where it is not."""
        self.say(link, "")
        return True


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("logs")
    grpc_port = free_port()
    env = _QUICK | {"MUSTER_GRPC_LISTEN": f"127.0.0.1:{grpc_port}"}
    plane = ControlPlane(folder / "plane", env=env)
    site = Site(folder, plane)
    try:
        plane.start()
        site.start_agent("http", MUSTER_CONTROL_PLANE=plane.url)
        site.start_agent("grpc", MUSTER_CONTROL_PLANE=f"grpc://127.0.0.1:{grpc_port}")
        for link in LINKS:
            eventually_sync(partial(site.hears, link), 60)
        yield site
    finally:
        for process in (*site.agents.values(), plane):
            process.stop()


@pytest.fixture
def until() -> Callable[..., Any]:
    def wait(check: Callable[[], object], timeout_s: float = 20.0) -> float:
        began_s = time.monotonic()
        eventually_sync(check, timeout_s)
        return time.monotonic() - began_s

    return wait
