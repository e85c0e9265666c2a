import random

import aiohttp
import pytest

from muster.connectors.catalog import PAYLOAD_CHECKS, USUAL_PORTS, all_connectors
from muster.connectors.llamacpp.connector import model_name, parameter_size
from muster.errors import InvalidInput


async def test_every_connector_has_its_name_first_and_a_check_at_submit() -> None:
    async with aiohttp.ClientSession() as session:
        connectors = all_connectors(session, random.Random(0))
    assert set(connectors) == {"simulation", "openai", "llamacpp", "ollama", "vllm"} == set(PAYLOAD_CHECKS)
    assert set(USUAL_PORTS) < set(connectors)
    for name, connector in connectors.items():
        assert connector.name == connector.provides[0] == name


@pytest.mark.parametrize("service", ["openai", "llamacpp", "ollama", "vllm"])
def test_a_job_without_a_question_is_refused_at_submit(service: str) -> None:
    with pytest.raises(InvalidInput, match="payload needs messages"):
        PAYLOAD_CHECKS[service]({"model": "m"})


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
