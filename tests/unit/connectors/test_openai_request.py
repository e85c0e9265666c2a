from typing import Any

import pytest

from muster.connectors.openai import base_url, choose_model
from muster.connectors.openai_request import Kind, read_request
from muster.domain.model import Model
from muster.domain.service import Service, ServiceStatus
from muster.errors import InvalidInput, ModelNotFound

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (CHAT, Kind.CHAT),
        ({"prompt": "hi"}, Kind.COMPLETION),
        ({"prompt": ["a", "b"]}, Kind.COMPLETION),
        ({"input": "hi"}, Kind.EMBEDDING),
        ({"input": [[1, 2]]}, Kind.EMBEDDING),
        (CHAT | {"prompt": "hi", "kind": "completion"}, Kind.COMPLETION),
    ],
)
def test_the_kind_is_seen_from_what_is_asked(payload: Any, kind: Kind) -> None:
    assert read_request(payload).kind is kind


def test_the_body_is_passed_on_but_for_what_the_worker_says_itself() -> None:
    payload = CHAT | {"model": "m", "stream": False, "stream_options": {}, "temperature": 0.5, "vendor_option": [1]}
    request = read_request(payload)
    assert request.body == CHAT | {"temperature": 0.5, "vendor_option": [1]}
    assert request.model == "m"


@pytest.mark.parametrize(
    ("options", "tokens_max"),
    [
        ({}, None),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20}, 20),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": None}, None),
        ({"max_tokens": -1}, None),
    ],
)
def test_the_end_is_known_when_somebody_set_it(options: dict[str, Any], tokens_max: int | None) -> None:
    assert read_request(CHAT | options).tokens_max == tokens_max


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (None, "payload"),
        ({}, "payload"),
        ([], "payload"),
        ("hi", "payload"),
        ({"message": "hi"}, "payload"),
        (CHAT | {"prompt": "hi"}, "payload.kind"),
        (CHAT | {"kind": "poem"}, "payload.kind"),
        ({"kind": "chat"}, "payload.messages"),
        ({"messages": []}, "payload.messages"),
        ({"messages": "hi"}, "payload.messages"),
        ({"messages": [{"content": "hi"}]}, "payload.messages[0].role"),
        ({"prompt": 5}, "payload.prompt"),
        ({"prompt": []}, "payload.prompt"),
        ({"input": ""}, "payload.input"),
        (CHAT | {"model": ""}, "payload.model"),
        (CHAT | {"model": 5}, "payload.model"),
        (CHAT | {"max_tokens": "many"}, "payload.max_tokens"),
        (CHAT | {"n": 0}, "payload.n"),
    ],
)
def test_a_bad_payload_is_refused_with_its_field(payload: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_request(payload)
    assert refused.value.field == field


def service(*models: Model) -> Service:
    return Service(name="here", connector="openai", status=ServiceStatus.RUNNING, models=models)


WRITER, EMBEDDER = Model(name="writer:latest"), Model(name="embedder", capabilities=("embedding",))


def test_the_model_goes_by_the_servers_own_name() -> None:
    assert choose_model(read_request(CHAT | {"model": "writer"}), service(WRITER, EMBEDDER)) == "writer:latest"


def test_without_a_name_the_only_one_that_fits_is_taken() -> None:
    assert choose_model(read_request(CHAT), service(WRITER, EMBEDDER)) == "writer:latest"
    assert choose_model(read_request({"input": "hi"}), service(WRITER, EMBEDDER)) == "embedder"


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelNotFound, match="here does not have the model x; it has writer, embedder"):
        choose_model(read_request(CHAT | {"model": "x"}), service(WRITER, EMBEDDER))


def test_among_several_one_must_be_named() -> None:
    with pytest.raises(InvalidInput, match="several: writer:latest, second") as refused:
        choose_model(read_request(CHAT), service(WRITER, Model(name="second")))
    assert refused.value.field == "payload.model"


def test_a_server_that_does_not_list_its_models_is_taken_at_its_word() -> None:
    assert choose_model(read_request(CHAT | {"model": "x"}), service()) == "x"
    with pytest.raises(InvalidInput, match="offers none"):
        choose_model(read_request(CHAT), service())


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_an_address_may_be_given_with_or_without_v1(url: str) -> None:
    assert base_url(url) == "http://h:1"
