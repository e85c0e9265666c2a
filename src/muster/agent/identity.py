"""Who this node is."""

import os
import platform
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import muster
from muster.agent.config import AgentConfig
from muster.domain.gpu import Gpu
from muster.domain.node import NodeFacts
from muster.errors import InvalidInput, SetupError
from muster.ids import NodeId, check_node_id

LOOPBACK = "127.0.0.1"
_DEFAULT_PORTS = {"http": 80, "https": 443}


def choose_node_id(node_id: str = "", machine_id: str = "", instance_id: str = "", hostname: str = "") -> NodeId:
    """Take the first that is given; SetupError when it names nothing, rather than joining a fleet as somebody else."""
    sources = {"node_id": node_id, "MACHINE_ID": machine_id, "INSTANCE_ID": instance_id, "the host name": hostname}
    source, value = next(((name, given) for name, given in sources.items() if given), ("the host name", ""))
    try:
        return check_node_id(value)
    except InvalidInput as error:
        raise SetupError(
            f"{source} does not name this machine: {error.message}",
            next_step="give it a name of its own: --node-id NAME, or MUSTER_NODE_ID",
        ) from None


def local_address(control_plane: str) -> str:
    """Return the address of this machine on the way to the control plane; nothing is sent."""
    parts = urlsplit(control_plane)
    if not parts.hostname:
        return LOOPBACK
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 80)
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)  # of a datagram socket: chooses the route only
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()  # no way there yet: others may still know the name


def is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def describe(config: AgentConfig, address: str, gpus: Sequence[Gpu]) -> NodeFacts:
    return NodeFacts(
        node_id=config.node_id,
        node_type=config.node_type or ("gpu-worker" if gpus else "cpu-worker"),
        hostname=socket.gethostname(),
        address=address,
        instance_id=config.instance_id,
        nebula_ip=config.nebula_ip,
        public_ip=config.public_ip,
        region=config.region,
        az=config.az,
        pool=config.pool,
        labels=config.labels,
        version=muster.__version__,
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu_cores=_cpu_cores(),
    )


def _cpu_cores() -> int | None:
    """Return the cores that we may use, which in a container are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
