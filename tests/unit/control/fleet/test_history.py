from typing import Any

import pytest

from muster.control.fleet.history import KEPT_S, History
from muster.domain.gpu import Gpu
from muster.domain.node import NodeFacts, Resources
from muster.ids import NodeId
from muster.registry.book import NodeBook
from muster.registry.lateness import Limits
from muster.wire import Heartbeat, Registration
from tests.clocks import ManualClock

NODE = NodeId("n1")
FACTS = NodeFacts(node_id=NODE)


class Beating:
    """A node whose heartbeats arrive as time goes on."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.book = NodeBook(Limits())
        self.history = History(self.book, self.clock)
        self.seq = 0

    def beat(self, after_s: float = 10.0, **said: Any) -> None:
        self.clock.advance(after_s)
        self.seq += 1
        message = Heartbeat(facts=FACTS, boot_id="b", seq=self.seq, heartbeat_interval_s=10.0, **said)
        self.book.heard(message, "http", self.clock.now_ms())
        self.history.nodes_changed([NODE])


@pytest.fixture
def node() -> Beating:
    return Beating()


def gpu(**figures: Any) -> Gpu:
    return Gpu(index=0, name="RTX 4090", **figures)


def test_each_figure_is_a_curve_and_what_is_unknown_a_gap(node: Beating) -> None:
    node.beat(resources=Resources(cpu_percent=12.3, memory_used_mb=8000), gpus=(gpu(utilization_percent=50.0),))
    node.beat(resources=Resources(memory_used_mb=8100), gpus=(gpu(temperature_c=61.5, power_w=123.456),))
    curves = node.history.curves(NODE)
    assert curves.at_ms == [1_010_000, 1_020_000]
    assert curves.of_node == {"cpu_percent": [12.3, None], "memory_used_mb": [8000, 8100]}
    (of_gpu,) = curves.of_gpus
    assert of_gpu["utilization_percent"] == [50.0, None]
    assert (of_gpu["temperature_c"], of_gpu["power_w"]) == ([None, 61.5], [None, 123.456])
    assert of_gpu["memory_used_mb"] == [None, None]


def test_a_point_comes_every_ten_seconds_however_often_the_node_reports(node: Beating) -> None:
    for _ in range(60):
        node.beat(1.0)
    assert len(node.history.curves(NODE).at_ms) == 7
    node.beat(9.5)
    assert len(node.history.curves(NODE).at_ms) == 8, "a little early is not too early"


def test_only_the_last_quarter_of_an_hour_is_kept(node: Beating) -> None:
    for number in range(500):
        node.beat(9.5, resources=Resources(cpu_percent=number))
    at_ms = node.history.curves(NODE).at_ms
    assert at_ms == sorted(at_ms)
    assert 94 <= len(at_ms) <= 96
    assert node.clock.now_ms() - at_ms[0] <= KEPT_S * 1000
    assert node.history.curves(NODE).of_node["cpu_percent"][-1] == 499
    full = node.history.bytes_kept()
    node.beat()
    assert node.history.bytes_kept() == full, "the ring does not grow"
    node.clock.advance(KEPT_S + 1)
    assert node.history.curves(NODE).at_ms == []


def test_it_is_gone_with_the_node_and_begins_anew_with_other_gpus(node: Beating) -> None:
    node.beat(gpus=(gpu(),))
    node.beat(gpus=(gpu(), gpu()))
    assert len(node.history.curves(NODE).of_gpus) == 2
    assert len(node.history.curves(NODE).at_ms) == 1
    node.book.forget(NODE, node.clock.now_ms())
    node.history.nodes_changed([NODE])
    assert node.history.curves(NODE).at_ms == []
    assert node.history.bytes_kept() == 0


def test_a_clock_that_is_set_back_does_not_stop_it(node: Beating) -> None:
    node.beat()
    node.beat(-3600.0)
    node.beat()
    assert len(node.history.curves(NODE).at_ms) == 3


def test_a_node_that_only_registered_has_no_points(node: Beating) -> None:
    node.book.registered(Registration(facts=FACTS, boot_id="b", heartbeat_interval_s=10.0), "http", 1)
    node.history.nodes_changed([NODE])
    assert node.history.curves(NODE).at_ms == []


def test_a_thousand_nodes_with_eight_gpus_take_little(node: Beating) -> None:
    """Fifteen kilobytes each, all in all: 15 MB for all of them."""
    for _ in range(120):
        node.beat(gpus=tuple(Gpu(index=index) for index in range(8)))
    assert node.history.bytes_kept() < 14_500
