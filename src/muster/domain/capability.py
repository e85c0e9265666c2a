from typing import Any

from msgspec import Struct, field


class CustomerAccess(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Whose jobs a worker takes: everybody's, or with `allow` only theirs; never those of `deny`.

    `strict`: it keeps customers apart from each other, as some jobs demand.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    strict: bool = False


class Capability(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker can run and what seldom changes; equal capabilities form one class.

    Installed models count, resident ones do not; total memory counts, free memory does not: those are preferences.
    """

    services: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    gpu_memory_gb: float = 0.0
    gpu_model: str | None = None
    cpu_cores: int = 0
    ram_gb: float = 0.0
    labels: dict[str, str] = field(default_factory=dict)
    custom: dict[str, Any] = field(default_factory=dict)
    customers: CustomerAccess = CustomerAccess()
