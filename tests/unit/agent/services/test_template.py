from typing import Any

import pytest

from muster.agent.config import ServiceTemplate
from muster.agent.services.template import bundles_of, check, fill, instances, models_of, paths_of
from muster.errors import InvalidInput


def template(*command: str, **more: Any) -> ServiceTemplate:
    return ServiceTemplate(**({"name": "llama", "connector": "llamacpp", "command": command or ("serve",)} | more))


def test_a_service_of_the_node_is_one_instance() -> None:
    (found,) = instances([template()], [0, 1])
    assert (found.name, found.gpu_index, found.port) == ("llama", None, None)


def test_a_service_of_the_gpus_is_one_instance_for_each_with_ports_in_a_row() -> None:
    found = instances([template(per="gpu", port=8188)], [0, 2])
    assert [(each.name, each.gpu_index, each.index, each.port) for each in found] == [
        ("llama-gpu0", 0, 0, 8188),
        ("llama-gpu2", 2, 1, 8189),
    ]
    assert instances([template(per="gpu")], []) == []


def test_placeholders_are_filled_in_and_other_braces_left_alone() -> None:
    values = {"python": "/bin/python", "port": "8123", "host": "127.0.0.1", "gpu": "1", "index": "0"}
    models = {"smol": "/models/smol.gguf"}
    filled = fill('{python} {host}:{port} {model:smol} {gpu}{index} {"a": {}} ${HOME}', values | {"HOME": "?"}, models)
    assert filled == '/bin/python 127.0.0.1:8123 /models/smol.gguf 10 {"a": {}} $?'


def test_the_models_of_a_template_are_known_once_each() -> None:
    assert models_of(template("{model:b}", "{model:a}", env={"OTHER": "{model:b}"})) == ["b", "a"]


@pytest.mark.parametrize(
    ("command", "shown"), [("{prot}", "{prot}"), ("{model}", "{model}"), ("{port:8}", "{port:8}"), ("{HOME}", "{HOME}")]
)
def test_a_placeholder_that_nobody_can_fill_in_is_named(command: str, shown: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be filled in") as caught:
        check(template("serve", command))
    assert shown in caught.value.message
    known = "{python} {host} {port} {gpu} {index} {model_path} {bundle_path} {model:NAME}"
    assert f"known are {known}" in caught.value.message


def test_what_the_template_itself_names_is_where_its_placeholders_lead() -> None:
    both = template("{bundle_path}/serve", "{model_path}", model="hf:o/r/m.gguf", bundle="https://host/b.tgz")
    check(both)
    assert models_of(both) == ["hf:o/r/m.gguf"]
    assert bundles_of(both) == ["https://host/b.tgz"]
    fetched = {"hf:o/r/m.gguf": "/store/m.gguf", "https://host/b.tgz": "/store/tree"}
    assert fill("{bundle_path}/serve {model_path}", paths_of(both, fetched), {}) == "/store/tree/serve /store/m.gguf"
    assert bundles_of(template()) == []
    assert paths_of(template(), fetched) == {}


@pytest.mark.parametrize("word", ["{model_path}", "{bundle_path}"])
def test_a_path_needs_a_name(word: str) -> None:
    with pytest.raises(InvalidInput, match=r"needs (model|bundle) = "):
        check(template(word))


@pytest.mark.parametrize("named", [{"model": "ftp://host/m"}, {"bundle": "https://user:pw@host/b.tgz"}])
def test_what_nobody_could_fetch_is_refused_with_the_template(named: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        check(template("serve", **named))
    with pytest.raises(InvalidInput):
        check(template("serve", "{model:hf:nothing}"))


def test_the_gpu_of_a_service_of_the_whole_node_is_nobodys() -> None:
    check(template("{gpu}", per="gpu"))
    with pytest.raises(InvalidInput, match='needs per = "gpu"'):
        check(template("{gpu}"))
