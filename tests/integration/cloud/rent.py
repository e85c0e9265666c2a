"""`muster cloud` and its surroundings as real processes: a control plane, moto for EC2, machines that tests boot."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.cloud.engine import MODEL, TinyEngine
from tests.moto_server import CREDENTIALS, IMAGE, MotoServer
from tests.muster_process import _CLEAN, ControlPlane, MusterProcess
from tests.waiting import eventually_sync

COMMAND_S = 90.0


class Rent:
    def __init__(self, folder: Path, moto: MotoServer) -> None:
        self.folder = folder
        self.moto = moto
        self.engine = TinyEngine()
        self.env = CREDENTIALS | {
            "MUSTER_CLOUD_PROVIDER": "ec2",
            "MUSTER_CLOUD_ENDPOINT_URL": moto.url,
            "MUSTER_CLOUD_REGION": "us-east-1",
            "MUSTER_CLOUD_IMAGE": IMAGE,
            "MUSTER_CLOUD_MODELS": MODEL,
            "MUSTER_CLOUD_REFRESH_S": "0.2",
            "MUSTER_CLOUD_WAKE_TIMEOUT_S": "60",
            "MUSTER_GRPC_LISTEN": "none",
            "MUSTER_LOG_LEVEL": "info",
        }
        self.plane = ControlPlane(folder / "plane", env=self.env)
        self.env["MUSTER_CLOUD_CONTROL_PLANE"] = self.plane.url
        self.agents: list[MusterProcess] = []

    def cli(self, *arguments: str, expect: int = 0, command: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*(command or (sys.executable, "-m", "muster.cli.main", "cloud")), *arguments],
            env=_CLEAN | {"HOME": str(self.folder), "MUSTER_CONTROL_PLANE": self.plane.url} | self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "--json").stdout)

    def instance(self, machine_id: str) -> Any:
        found = self.moto.client().describe_instances(InstanceIds=[machine_id])
        return found["Reservations"][0]["Instances"][0]

    def state(self, machine_id: str) -> str:
        return str(self.instance(machine_id)["State"]["Name"])

    def wait_for_state(self, machine_id: str, state: str) -> None:
        eventually_sync(lambda: self.state(machine_id) == state, 30.0)

    def boot(self, machine_id: str) -> MusterProcess:
        """Do as the machine does when it comes up: start its agent under the machine's id."""
        agent = MusterProcess(
            self.folder / f"machine-{len(self.agents)}",
            "agent",
            env={
                "INSTANCE_ID": machine_id,
                "CONTROL_PLANE_ADDR": self.plane.url,
                "MUSTER_DATA_DIR": str(self.folder / f"machine-{len(self.agents)}" / "data"),
                "MUSTER_ATTACH": f"openai={self.engine.url}",
                "MUSTER_DISCOVER": "false",
                "MUSTER_HEARTBEAT_INTERVAL_S": "0.5",
                "MUSTER_NUM_GPUS": "0",
            },
        )
        self.agents.append(agent)
        return agent.start()

    def events(self, kind: str) -> list[Any]:
        events = self.plane.get("/api/events?after=0&limit=500")["events"]
        return [event for event in events if event["kind"] == kind]

    def close(self) -> None:
        for process in (*self.agents, self.plane):
            if process.running:
                process.kill()
        self.engine.stop()
