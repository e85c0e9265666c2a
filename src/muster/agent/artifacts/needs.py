"""What the services of a node need before they start, which of them use what, and what is wanted here besides."""

from collections.abc import Sequence

from muster.agent.board import ServiceBoard
from muster.agent.config import ServiceTemplate
from muster.agent.services.template import Instance, bundles_of, instances, models_of
from muster.domain.artifact import ArtifactKind
from muster.domain.service import ServiceStatus
from muster.domain.source import canonical_name

_AT_REST = frozenset({ServiceStatus.STOPPED, ServiceStatus.FAILED})


class Needs:
    """`pinned` are models that are wanted here whether a service names them or not. Names are as they were written."""

    def __init__(self, templates: Sequence[ServiceTemplate], pinned: Sequence[str], board: ServiceBoard) -> None:
        self._templates = templates
        self._board = board
        self.instances: list[Instance] = []  # to be, once it is planned
        self.pinned = tuple(pinned)
        self.kinds: dict[str, ArtifactKind] = dict.fromkeys(pinned, ArtifactKind.MODEL)
        for template in templates:
            self.kinds |= dict.fromkeys(models_of(template), ArtifactKind.MODEL)
            self.kinds |= dict.fromkeys(bundles_of(template), ArtifactKind.BUNDLE)

    def plan(self, gpu_indices: Sequence[int]) -> None:
        """Know the instances, now that the GPUs are known."""
        self.instances = instances(self._templates, gpu_indices)

    def of_services(self, services: Sequence[str] | None) -> list[str]:
        """Return what the instances of these names need, or all of them."""
        meant = [instance for instance in self.instances if services is None or instance.name in services]
        return list(dict.fromkeys(name for instance in meant for name in _names(instance)))

    def services_with(self, name: str) -> list[Instance]:
        """Return the instances that need it."""
        return [instance for instance in self.instances if name in _names(instance)]

    def users_of(self, name: str) -> tuple[str, ...]:
        """Return the services that have started with it and have not ended; `name` in any spelling."""
        canonical = canonical_name(name)
        statuses = {service.name: service.status for service in self._board.services()}
        return tuple(
            instance.name
            for instance in self.instances
            if statuses.get(instance.name, ServiceStatus.STOPPED) not in _AT_REST
            and canonical in map(canonical_name, _names(instance))
        )

    def is_pinned(self, name: str) -> bool:
        return name in map(canonical_name, self.pinned)

    def wants(self, names: Sequence[str]) -> bool:
        """Tell whether one of these, in their one spelling, is wanted here."""
        return not {canonical_name(name) for name in self.kinds}.isdisjoint(names)


def _names(instance: Instance) -> list[str]:
    return [*models_of(instance.template), *bundles_of(instance.template)]
