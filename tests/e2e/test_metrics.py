"""The metrics of a whole control plane: nothing that the reference lists is missing."""

import urllib.request

from muster.metrics import AREAS, FAMILIES
from tests.muster_process import ControlPlane
from tests.prometheus import promtool


def test_every_metric_of_the_reference_is_there_but_for_what_is_not_set_up(plane: ControlPlane) -> None:
    with urllib.request.urlopen(f"{plane.url}/metrics", timeout=10) as answer:
        text = answer.read().decode()

    named = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE")}
    not_set_up = {name for name in FAMILIES if name.startswith("muster_broker_")}
    not_set_up |= {family.name for family in AREAS["Rented machines"]}
    not_set_up |= {"muster_gateway_processes", "muster_gateway_process_memory_bytes"}  # one process is not told
    assert named == FAMILIES.keys() - not_set_up
    promtool("check", "metrics", text=text)
