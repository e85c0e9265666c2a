from pathlib import Path

import pytest
from msgspec import Struct

from muster.agent.node_file import NodeFile, load_node_file
from muster.agent.owner.rules import OwnerRules
from muster.domain.residency import ModelPolicy, ModelRule
from muster.errors import SetupError

WHOLE = """
[node]
id = "basic-machine-local"
control_plane = "http://127.0.0.1:8090"
gpus = "auto"
labels = { zone = "a" }
attach = { ollama = "http://127.0.0.1:11434", openai = ["http://a:1", "http://b:2"] }

[[service]]
name = "llama"
connector = "llamacpp"
per = "gpu"
command = ["{python}", "-m", "serve", "--port", "{port}", "--model", "{model:smollm2-135m}"]
health = "/health"
limits = { cpu = "200%", memory = "1G" }

[[service]]
name = "comfyui"
connector = "comfyui"
command = ["comfy"]
port = 8188
[service.env]
HF_HOME = "/cache"

[commands]
disk = ["df", "-h", "{args}"]
"""


def load(tmp_path: Path, text: str) -> NodeFile:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return load_node_file(path)


def test_a_node_file_says_what_a_machine_is_and_runs(tmp_path: Path) -> None:
    found = load(tmp_path, WHOLE)
    assert (found.node.id, found.node.gpus, found.node.labels) == ("basic-machine-local", "auto", {"zone": "a"})
    assert found.node.attached == (
        ("ollama", "http://127.0.0.1:11434"),
        ("openai", "http://a:1"),
        ("openai", "http://b:2"),
    )
    llama, comfyui = found.services
    assert (llama.name, llama.per, llama.health) == ("llama", "gpu", "/health")
    assert llama.limits.cgroup_files() == {"cpu.max": "200000 100000", "memory.max": "1073741824"}
    assert (llama.adopt, comfyui.limits.cgroup_files()) == ("after_crash", {})
    assert (comfyui.port, comfyui.env) == (8188, {"HF_HOME": "/cache"})
    assert found.commands == {"disk": ("df", "-h", "{args}")}


def test_an_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "") == NodeFile()


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ('pus = "auto"', 'puz = "auto"', 5, "unknown key gpuz in [node]; the nearest known one is gpus"),
        ('health = "/health"', 'helth = "/"', 14, "unknown key helth in [service]; the nearest known one is health"),
        ("port = 8188", 'port = "8188"', 21, "port: Expected `int | null`, got `str`"),
        ("port = 8188", "port = 0", 21, "port: Expected `int` >= 1"),
        ('per = "gpu"', 'per = "core"', 12, "per: Invalid enum value 'core'"),
        ('command = ["comfy"]', "command = []", 20, "command: Expected `array` of length >= 1"),
        ('command = ["comfy"]', 'command = ["{prot}"]', 20, "{prot} cannot be filled in"),
        ('name = "comfyui"', 'name = "llama"', 18, "two of [[service]] are named llama"),
        ('connector = "comfyui"\n', "", 17, "Object missing required field `connector`"),
        ('[[service]]\nname = "comfyui"', '[[servce]]\nname = "comfyui"', 17, "unknown key servce in the file"),
        ('HF_HOME = "/cache"', "HF_HOME = 3", 22, "env: Expected `str`, got `int`"),
        ('"200%"', '"two"', 15, "limits.cpu: the CPU limit must be a percentage"),
        ('"1G"', '"1 byte"', 15, "limits.memory: the memory limit must be a size"),
        ("cpu =", "cpus =", 15, "limits: Object contains unknown field `cpus`"),
        ('health = "/health"', 'adopt = "soon"', 14, "adopt: Invalid enum value 'soon'"),
        ('disk = ["df", "-h", "{args}"]', 'disk = "df -h"', 26, "disk must be a list of words, the program first"),
        ('disk = ["df", "-h", "{args}"]', "disk = []", 26, "disk must be a list of words"),
        ('disk = ["df", "-h", "{args}"]', 'disk = ["df", 3]', 26, "disk must be a list of words"),
    ])  # fmt: skip
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, problem: str) -> None:
    assert old in WHOLE
    with pytest.raises(SetupError) as caught:
        load(tmp_path, WHOLE.replace(old, new))
    assert caught.value.message.startswith(f"{tmp_path / 'node.toml'}, line {line}: ")
    assert problem in caught.value.message


def test_a_section_that_is_no_table_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="node must be a table"):
        load(tmp_path, "node = 3")
    with pytest.raises(SetupError, match="commands must be a table"):
        load(tmp_path, 'commands = ["df"]')


def test_what_is_no_toml_or_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is not TOML"):
        load(tmp_path, "[node\n")
    with pytest.raises(SetupError, match="cannot read"):
        load_node_file(tmp_path / "missing.toml")


class Robot(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    arms: int = 2


def test_further_tables_are_read_as_they_are_described(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('[[robot]]\nname = "a"\n[[robot]]\nname = "b"\narms = 3\n')
    found = load_node_file(path, {"robot": Robot})
    assert found.sections == {"robot": (Robot(name="a"), Robot(name="b", arms=3))}
    with pytest.raises(SetupError, match="unknown key robot"):
        load_node_file(path)
    path.write_text('[[robot]]\nname = "a"\n[[robot]]\nname = "b"\nlegs = 3\n')
    with pytest.raises(SetupError, match=r"line 5: unknown key legs in \[robot\]; the nearest known one is"):
        load_node_file(path, {"robot": Robot})
    path.write_text('[[robot]]\nname = "a"\n[[robot]]\nname = "a"\n')
    with pytest.raises(SetupError, match=r"two of \[\[robot\]\] are named a"):
        load_node_file(path, {"robot": Robot})


def test_models_and_bundles_that_nobody_could_fetch_are_told_with_their_line(tmp_path: Path) -> None:
    node = '[node]\nmodels = ["hf:org/repo/m.gguf"]\n'
    text = f'{node}[[service]]\nname = "s"\nconnector = "c"\ncommand = ["{{bundle_path}}/s"]\n'
    file = load(tmp_path, text + 'bundle = "https://host/b.tgz"')
    assert (file.node.models, file.services[0].bundle) == (("hf:org/repo/m.gguf",), "https://host/b.tgz")
    with pytest.raises(SetupError, match="line 7: nothing is fetched by ftp://"):
        load(tmp_path, text + 'bundle = "ftp://host/b.tgz"')
    with pytest.raises(SetupError, match="line 2: 'hf:org' cannot be fetched"):
        load(tmp_path, text.replace("/repo/m.gguf", "") + 'bundle = "https://host/b.tgz"')


def test_models_and_the_owner_have_their_own_sections(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
[models]
idle_unload_s = 900
resident_max = 2
pinned = ["kept:latest", "ruled"]
share_gpu = ["ollama", "comfyui"]
[[models.rule]]
name = "ruled"
memory_mb = 900

[owner]
processes = ["blender"]
hours = ["Mon-Fri 09:00-17:30"]
""",
    )
    assert found.models is not None
    assert found.models.policy == ModelPolicy(
        idle_unload_s=900,
        resident_max=2,
        rules=(ModelRule(name="ruled", pinned=True, memory_mb=900), ModelRule(name="kept", pinned=True)),
        share_gpu=("ollama", "comfyui"),
    )
    assert found.owner == OwnerRules(processes=("blender",), hours=("Mon-Fri 09:00-17:30",))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[owner]\nhours = ["noon"]', "line 2: 'noon' are no hours"),
        ("[models]\nidle_unload_s = 0", "line 2: idle_unload_s"),
        ("[models]\nidle = 1", "line 2: unknown key idle in [models]"),
        ('[[service]]\nname = "a"\nconnector = "c"\ncommand = ["x"]\non_demand = true', "on_demand needs serves"),
    ],
)
def test_mistakes_in_them_are_told(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SetupError) as caught:
        load(tmp_path, text)
    assert problem in caught.value.message
