"""What a service draws: the power of the GPUs it runs on, as its node last said."""

from muster.domain.gpu import Gpu
from muster.domain.node import Node


def watts_of(node: Node, service_name: str) -> float | None:
    """Return None where no power is known; others on the same GPUs are not told apart."""
    known = [gpu.power_w for gpu in _gpus_of(node, service_name) if gpu.power_w is not None]
    return sum(known) if known else None


def _gpus_of(node: Node, service_name: str) -> list[Gpu]:
    """Find those of which the service owns a part, else the one it was given, else all."""
    owned = [
        gpu for gpu in node.gpus if any(owner.service and owner.name == service_name for owner in gpu.owners or ())
    ]
    if owned:
        return owned
    index = next((service.gpu_index for service in node.services if service.name == service_name), None)
    return [gpu for gpu in node.gpus if index is None or gpu.index == index]
