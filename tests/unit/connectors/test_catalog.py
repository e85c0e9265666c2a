import random
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from muster.connectors.catalog import (
    BUILT_IN_NAMES,
    NODE_SECTIONS,
    USUAL_PORTS,
    all_connectors,
    job_kinds,
    node_connectors,
)
from muster.connectors.llamacpp.connector import model_name, parameter_size
from muster.connectors.plugins import Plugins, load_plugins
from muster.connectors.program.config import Program
from muster.connectors.simulation import SimulationConnector
from muster.connectors.web_service.config import WebService
from muster.errors import InvalidInput


async def test_every_connector_has_its_name_first_a_schema_and_a_check_at_submit() -> None:
    async with aiohttp.ClientSession() as session:
        connectors = all_connectors(session, random.Random(0))
    kinds = {kind.name: kind for kind in job_kinds()}
    assert set(connectors) | {"http", "command"} == set(kinds) == set(BUILT_IN_NAMES)
    assert set(USUAL_PORTS) < set(connectors)
    for name, connector in connectors.items():
        assert connector.name == connector.provides[0] == name
        assert connector.schema() == kinds[name].schema
        assert kinds[name].schema.get("type") == "object" or kinds[name].schema["anyOf"]


@pytest.mark.parametrize("service", ["openai", "llamacpp", "vllm", "ollama"])
def test_a_job_without_a_question_is_refused_at_submit(service: str) -> None:
    (kind,) = (kind for kind in job_kinds() if kind.name == service)
    with pytest.raises(InvalidInput, match="payload needs messages"):
        kind.check({"model": "m"})


async def test_services_and_programs_of_the_node_file_are_connectors_of_their_own(tmp_path: Path) -> None:
    sections = {
        "http": (WebService(name="thumbs", url="http://127.0.0.1:1"),),
        "program": (Program(name="date", command=("date",)), Program(name="none", command=("no-such-program",))),
    }
    assert set(sections) == set(NODE_SECTIONS)
    async with aiohttp.ClientSession() as session:
        found = node_connectors(session, random.Random(0), sections, Plugins(), tmp_path)
    assert {"http:thumbs", "command:date"} <= set(found.connectors)
    assert found.connectors["http:thumbs"].provides == ("http:thumbs",)
    assert found.broken == {
        "command:none": "command:none is not offered: there is no program 'no-such-program' on this machine"
    }


# --- of other packages ------------------------------------------------------------------------------------------------


class Good(SimulationConnector):
    name = "good"
    provides = ("good",)


class Clash(Good):
    name = "openai"
    provides = ("openai",)


class Nameless(Good):
    name = "no name"
    provides = ("no name",)


class Elsewhere(Good):
    name = "elsewhere"


class Undecided(Good):
    name = "undecided"
    provides = ("undecided",)
    needs_service = None  # type: ignore[assignment]  # as a careless author might


class Blocking(Good):
    name = "blocking"
    provides = ("blocking",)

    def run(self, *_: Any) -> Any: ...


class Mute(Good):
    name = "mute"
    provides = ("mute",)
    schema = None  # type: ignore[assignment]  # as above


def entry(name: str, value: str | None = None) -> EntryPoint:
    return EntryPoint(name, value or f"{__name__}:{name}", "muster.connectors")


def test_a_class_of_another_package_is_a_connector() -> None:
    found = load_plugins(BUILT_IN_NAMES, [entry("Good")])
    assert found == Plugins(kinds={"good": Good}, broken={})
    assert job_kinds(found)[-1].name == "good"


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (entry("gone", "no_such_package.at_all:Connector"), "ModuleNotFoundError: No module named 'no_such_package'"),
        (entry("missing", f"{__name__}:Missing"), "AttributeError"),
        (entry("entry"), "it is not a class"),
        (entry("Clash"), "there is a connector 'openai' already"),
        (entry("Nameless"), "name must be 1 to 128 letters"),
        (entry("Elsewhere"), "its `provides` must be a tuple that begins with its name"),
        (entry("Undecided"), "its `needs_service` must be True or False"),
        (entry("Blocking"), "its `run` must be `async def`"),
        (entry("Mute"), "it has no `schema`"),
    ],
    ids=lambda value: value.name if isinstance(value, EntryPoint) else "",
)
def test_a_broken_one_is_told_of_by_name_and_harms_no_other(broken: EntryPoint, why: str) -> None:
    found = load_plugins(BUILT_IN_NAMES, [broken, entry("Good")])
    assert list(found.kinds) == ["good"]
    (told,) = found.broken.values()
    assert told.startswith(f"the connector {broken.name} (")
    assert why in told


async def test_one_that_cannot_be_made_is_told_of_as_well(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:

        class Fragile(Good):
            def __init__(self, _: Any) -> None:
                raise RuntimeError("no GPU")

        found = node_connectors(session, random.Random(0), {}, Plugins(kinds={"good": Fragile}), tmp_path)
    assert "good" not in found.connectors
    assert "simulation" in found.connectors
    assert found.broken == {"good": "the connector good cannot be made: RuntimeError: no GPU"}


@pytest.mark.parametrize(
    ("served", "name"),
    [("/models/a-7b.Q4_K_M.gguf", "a-7b.Q4_K_M"), ("tiny.gguf", "tiny"), ("org/model", "org/model"), ("a", "a")],
)
def test_a_path_is_shortened_to_the_files_stem(served: str, name: str) -> None:
    assert model_name(served) == name


@pytest.mark.parametrize(
    ("parameters", "size"), [(134_515_008, "135M"), (7_615_616_512, "7.62B"), (118_336, "118K"), (12, "12")]
)
def test_a_number_of_parameters_is_said_as_people_say_it(parameters: int, size: str) -> None:
    assert parameter_size(parameters) == size
