import json

from tests.unit.cli.conftest import Cli

SMALL = ("sim", "--seed", "1", "--nodes", "2", "--workers", "1", "--jobs", "3", "--hours", "0.02")


def test_a_seed_always_plays_the_same_world(cli: Cli) -> None:
    first, second = cli(*SMALL, "--json"), cli(*SMALL, "--json")

    assert first.code == 0
    assert json.loads(first.out) == json.loads(second.out)
    assert json.loads(first.out)["nodes"] == 2


def test_people_read_whether_every_rule_held(cli: Cli) -> None:
    outcome = cli(*SMALL, "--calm")

    assert "every rule held" in outcome.out
    assert "faults: none" in outcome.out
