"""Phase 2.3 and the clean-up: the script that launches a worker, on EC2 as moto imitates it."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.programs import DEPLOY
from tests.integration.cloud.rent import Rent
from tests.moto_server import MotoServer

SCRIPT = (str(DEPLOY / "cloud" / "llm-worker.sh"),)


@pytest.fixture
def rent(tmp_path: Path) -> Iterator[Rent]:
    moto = MotoServer(tmp_path)
    rent = Rent(tmp_path, moto)
    rent.env |= {"LLM_INSTANCE_TYPE": "g5.xlarge", "MUSTER": str(Path(sys.executable).with_name("muster"))}
    yield rent
    rent.close()
    moto.stop()


def test_2_3_start_launches_a_worker_and_prints_its_id_and_stop_ends_it(rent: Rent) -> None:
    machine_id = rent.cli("start", command=SCRIPT).stdout.strip()
    status = rent.cli("status", command=SCRIPT)
    stopped = rent.cli("stop", command=SCRIPT)
    rent.cli("restart", command=SCRIPT, expect=2)

    assert re.fullmatch(r"i-[0-9a-f]{17}", machine_id)
    assert rent.instance(machine_id)["InstanceType"] == "g5.xlarge"
    assert machine_id in status.stdout
    assert f"{machine_id} terminating" in stopped.stdout
    rent.wait_for_state(machine_id, "terminated")
