import pytest

from muster.commands.kinds import KINDS, check_args, command_name
from muster.commands.order import (
    Order,
    check_command,
    check_command_id,
    check_timeout_s,
    commands_of,
    joint_status,
    targets,
)
from muster.commands.selector import parse_selector
from muster.domain.command import CommandStatus
from muster.domain.gpu import Gpu
from muster.domain.node import Node
from muster.errors import InvalidInput, NodeNotConnected, NodeNotFound
from muster.ids import CommandId, NodeId
from tests.unit.commands.makers import command, node


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("status", "status"),
        ("STATUS", "status"),
        (" Restart-Service ", "restart_service"),
        ("restart service", "restart_service"),
        ("COMMAND_TYPE_SHUTDOWN", "shutdown"),
        ("CMD_PULL_MODEL", "pull_model"),
        ("command_drain", "drain"),
    ],
)
def test_names_are_understood_as_people_and_enums_write_them(given: str, name: str) -> None:
    assert command_name(given) == name


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="did you mean restart_service"):
        command_name("restart_servce")
    with pytest.raises(InvalidInput, match="known are status, "):
        command_name("xyzzy")
    with pytest.raises(InvalidInput, match="command is missing"):
        check_command(None, {})


@pytest.mark.parametrize("name", KINDS)
def test_every_command_says_what_it_is_about_and_takes_what_it_needs(name: str) -> None:
    examples = {"text": "x", "lines": 5, "words": ["a", "b"]}
    check_args(name, {arg.name: examples[arg.form] for arg in KINDS[name].args})
    assert KINDS[name].about
    assert check_timeout_s(name, None) == KINDS[name].timeout_s


@pytest.mark.parametrize(
    ("name", "args", "field"),
    [
        ("status", {"x": 1}, "args.x"),
        ("logs", {"colour": "red", "service": "a"}, "args.colour"),
        ("logs", {}, "args.service"),
        ("logs", {"service": 5}, "args.service"),
        ("logs", {"service": "x" * 5_000}, "args.service"),
        ("logs", {"service": "a", "lines": 0}, "args.lines"),
        ("logs", {"service": "a", "lines": "5"}, "args.lines"),
        ("exec", {"name": "df", "args": ["x"] * 100}, "args.args"),
        ("exec", {"name": "df", "args": [5]}, "args.args"),
        ("exec", {"name": "df", "args": ["\0"]}, "args.args"),
    ],
)
def test_arguments_that_do_not_fit_are_named(name: str, args: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_args(name, args)
    assert refused.value.field == field


def test_a_timeout_is_bounded() -> None:
    assert check_timeout_s("status", 5) == 5
    for given in (0.0, -1.0, 1e6, float("nan")):
        with pytest.raises(InvalidInput, match="timeout"):
            check_timeout_s("status", given)


def test_an_id_is_a_name_with_room_for_that_of_a_node() -> None:
    assert check_command_id("mine-1") == "mine-1"
    for given in ("", "no spaces", "x" * 121):
        with pytest.raises(InvalidInput) as refused:
            check_command_id(given)
        assert refused.value.field == "command_id"


FLEET = [
    node("b", labels={"zone": "a"}),
    node("a", labels={"zone": "a", "gpu": "yes"}),
    node("c", labels={"zone": "b"}, pool="night"),
    node("away", connected=False, labels={"zone": "a"}),
]


def names(found: list[Node]) -> list[str]:
    return [each.node_id for each in found]


def order(*nodes: str, selector: str | None = None) -> Order:
    return Order(
        command="status",
        nodes=tuple(map(NodeId, nodes)),
        selector=None if selector is None else parse_selector(selector),
        timeout_s=5.0,
    )


def test_named_nodes_must_be_there_and_connected() -> None:
    assert names(targets(order("c", "a", "c"), FLEET)) == ["c", "a"]
    with pytest.raises(NodeNotFound, match="no node 'z'"):
        targets(order("a", "z"), FLEET)
    with pytest.raises(NodeNotConnected, match=r"away cannot be reached: its health is dead"):
        targets(order("a", "away"), FLEET)


@pytest.mark.parametrize(
    ("selector", "meant"),
    [
        ("zone=a", ["a", "b"]),
        ("zone=a,gpu", ["a"]),
        (" zone = a , gpu = yes ", ["a"]),
        ("zone!=a", ["c"]),
        ("pool=night", ["c"]),
        ("type=cpu-worker", ["a", "b", "c"]),
    ],
)
def test_a_selector_picks_among_the_connected(selector: str, meant: list[str]) -> None:
    assert names(targets(order(selector=selector), FLEET)) == meant


def test_a_node_with_gpus_has_the_label_without_being_told() -> None:
    with_gpu = Node(facts=FLEET[2].facts, health=FLEET[2].health, gpus=(Gpu(index=0, name="RTX 4090"),))
    assert names(targets(order(selector="gpu=RTX 4090"), [with_gpu])) == ["c"]


def test_nobody_meant_is_an_error_that_says_why() -> None:
    with pytest.raises(NodeNotFound, match="has these labels") as refused:
        targets(order(selector="zone=z"), FLEET)
    assert refused.value.field == "selector"
    with pytest.raises(NodeNotFound, match="no connected node in this fleet"):
        targets(order(), FLEET[3:])
    assert names(targets(order(), FLEET)) == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["", "a=b=c", "=a", "a,,b", "!a", "a b"])
def test_a_selector_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_selector(text)
    assert refused.value.field == "selector"


def test_each_node_of_a_group_gets_a_command_of_its_own() -> None:
    first, second = commands_of(order("a", "b"), CommandId("g"), [FLEET[1], FLEET[0]], 1_000)
    assert (first.command_id, first.node_id, first.group_id) == ("g:a", "a", "g")
    assert (second.command_id, second.boot_id) == ("g:b", "b-boot")
    assert (first.created_at_ms, first.deadline_ms) == (1_000, 6_000)
    single = Order(command="status", nodes=(NodeId("a"),), single=True, timeout_s=1.0)
    (only,) = commands_of(single, CommandId("mine"), [FLEET[1]], 0)
    assert (only.command_id, only.group_id) == ("mine", None)


@pytest.mark.parametrize(
    ("found", "joint"),
    [
        (["done", "done"], "done"),
        (["done", "acked", "failed"], "acked"),
        (["sent", "acked"], "sent"),
        (["created", "done"], "created"),
        (["done", "expired"], "expired"),
        (["expired", "failed", "done"], "failed"),
    ],
)
def test_a_group_stands_as_its_least_advanced(found: list[str], joint: str) -> None:
    assert joint_status(command(status=CommandStatus(each)) for each in found) == joint


def test_what_may_be_left_out_may_be_left_out() -> None:
    assert check_command("LOGS", {"service": "llama"}) == "logs"
