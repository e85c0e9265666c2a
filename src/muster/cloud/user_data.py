"""What a new machine does when it first boots: cloud-init's instructions, which end with the agent as a service.

JSON is YAML as well, and leaves no doubt about quoting. Secrets go into one file that root alone may read, and are
neither printed nor logged on the way; the output of everything else is in /var/log/userdata.log.
"""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

from msgspec import Struct

from muster.errors import InvalidInput

ENV_FILE = "/etc/worker-agent/env"
_NODE_FILE = "/etc/worker-agent/node.toml"
_BYTES_MAX = 16_384  # EC2 takes no more
_SAFE = re.compile(r"[\x21\x23-\x26\x28-\x5b\x5d-\x7e]*\Z")  # no blanks, quotes or backslashes: nothing to escape


class Boot(Struct, frozen=True, kw_only=True):
    """`control_plane` is http:// or grpc://; with a broker the agent reports over that, and fetches its jobs there."""

    control_plane: str
    rabbitmq_url: str = ""
    token: str = ""
    package: str = "muster"
    models: Sequence[str] = ()
    node_file: str = ""  # TOML that says which services run; empty: a llama.cpp server for each model
    slots: int = 4
    context_tokens: int = 4096


def render(boot: Boot) -> str:
    config = {
        "output": {"all": "| tee -a /var/log/userdata.log"},
        "write_files": _files(boot),
        "runcmd": [["/usr/local/sbin/worker-agent-setup", boot.package]],
    }
    text = f"#cloud-config\n{json.dumps(config, indent=1)}\n"
    if len(text.encode()) > _BYTES_MAX:
        raise InvalidInput(
            f"the machine's user data may have {_BYTES_MAX} bytes, got {len(text.encode())}: shorten the node file",
            field="node_file",
        )
    return text


def environment(boot: Boot) -> dict[str, str]:
    values = {
        "CONTROL_PLANE_ADDR": boot.control_plane,
        "RABBITMQ_URL": boot.rabbitmq_url,
        "MUSTER_LINK": "amqp" if boot.rabbitmq_url else "",
        "MUSTER_TOKEN": boot.token,
        "MUSTER_NODE_FILE": _NODE_FILE if _node_file(boot) else "",
    }
    for name, value in values.items():
        if not _SAFE.match(value):
            raise InvalidInput(f"{name} may not hold blanks, quotes or backslashes", field=name)
    return {name: value for name, value in values.items() if value}


def _files(boot: Boot) -> list[dict[str, str]]:
    found = [
        _file(ENV_FILE, _lines(environment(boot)), "0600"),
        _file("/etc/sysusers.d/muster.conf", _asset("sysusers.conf"), "0644"),
        _file("/etc/systemd/system/worker-agent.service", _asset("worker-agent.service"), "0644"),
        _file("/etc/systemd/system/worker-agent.service.d/ec2.conf", _asset("ec2.conf"), "0644"),
        _file("/usr/local/sbin/worker-agent-identity", _asset("worker-agent-identity.sh"), "0755"),
        _file("/usr/local/sbin/worker-agent-setup", _asset("worker-agent-setup.sh"), "0755"),
    ]
    if node_file := _node_file(boot):
        found.append(_file(_NODE_FILE, node_file, "0644"))
    return found


def _file(path: str, content: str, permissions: str) -> dict[str, str]:
    return {"path": path, "content": content, "permissions": permissions, "owner": "root:root"}


def _asset(name: str) -> str:
    return files("muster.cloud").joinpath("boot", name).read_text()


def _lines(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _node_file(boot: Boot) -> str:
    """Return the node file given, else one with a llama.cpp server for each model."""
    return boot.node_file or "\n".join(_service(boot, index, model) for index, model in enumerate(boot.models))


def _service(boot: Boot, index: int, model: str) -> str:
    if not _SAFE.match(model):
        raise InvalidInput(f"{model!r} is no name of a model", field="models")
    command = [
        *("{python}", "-m", "muster.connectors.llamacpp.serve", "--host", "{host}", "--port", "{port}"),
        *("--model", f"{{model:{model}}}"),
        *("--slots", str(boot.slots), "--ctx-per-slot", str(boot.context_tokens)),
    ]
    return (
        f'[[service]]\nname = "llama-{index}"\nconnector = "llamacpp"\nper = "node"\nslots = {boot.slots}\n'
        f"command = {json.dumps(command)}\n"
    )
