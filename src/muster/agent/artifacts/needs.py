"""What the services of a node need before they start, and which of them use what."""

from collections.abc import Sequence

from muster.agent.board import ServiceBoard
from muster.agent.config import ServiceTemplate
from muster.agent.services.template import Instance, bundles_of, instances, models_of
from muster.domain.artifact import ArtifactKind
from muster.domain.service import ServiceStatus
from muster.domain.source import canonical_name

_AT_REST = frozenset({ServiceStatus.STOPPED, ServiceStatus.FAILED})


class Needs:
    """`pins` are models that are wanted here whether a service names them or not."""

    def __init__(self, templates: Sequence[ServiceTemplate], pins: Sequence[str], board: ServiceBoard) -> None:
        self._templates = templates
        self._board = board
        self._instances: list[Instance] = []
        self.pins = frozenset(canonical_name(pin) for pin in pins)
        self.kinds: dict[str, ArtifactKind] = {}  # of each name, as it was written
        for template in templates:
            self.kinds |= dict.fromkeys(models_of(template), ArtifactKind.MODEL)
            self.kinds |= dict.fromkeys(bundles_of(template), ArtifactKind.BUNDLE)
        self.kinds |= dict.fromkeys(pins, ArtifactKind.MODEL)

    def plan(self, gpu_indices: Sequence[int]) -> list[Instance]:
        """Return the instances to be, now that the GPUs are known."""
        self._instances = instances(self._templates, gpu_indices)
        return self._instances

    def of_service(self, service: str) -> list[str]:
        """Return what an instance, or a template, of that name needs."""
        for instance in self._instances:
            if service == instance.name:
                return [*models_of(instance.template), *bundles_of(instance.template)]
        return []

    def services_with(self, name: str) -> list[Instance]:
        """Return the instances that need it."""
        return [instance for instance in self._instances if name in self.of_service(instance.name)]

    def users_of(self, name: str) -> tuple[str, ...]:
        """Return the services that have started with it and have not ended; `name` in any spelling."""
        canonical = canonical_name(name)
        statuses = {service.name: service.status for service in self._board.services()}
        return tuple(
            instance.name
            for instance in self._instances
            if statuses.get(instance.name, ServiceStatus.STOPPED) not in _AT_REST
            and canonical in map(canonical_name, self.of_service(instance.name))
        )

    def wants(self, names: Sequence[str]) -> bool:
        wanted = {canonical_name(name) for name in self.kinds}
        return not wanted.isdisjoint(names)
