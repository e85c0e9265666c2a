"""What a service may use up, as a node file says it and as the kernel wants it."""

import re
from typing import Annotated

from msgspec import Meta, Struct

from muster.errors import InvalidInput

_PERIOD_US = 100_000
_PERCENT_MAX = 100_000
_BYTES_MIN = 1024 * 1024
_CPU = re.compile(r"(\d+(?:\.\d+)?)%")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}

Text = Annotated[str, Meta(max_length=32)]


class ServiceLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For all processes of an instance together: `cpu = "200%"` is two cores, `memory = "1G"` has 1024³ bytes."""

    cpu: Text | None = None
    memory: Text | None = None

    def cgroup_files(self) -> dict[str, str]:
        """Return what is to be written where; InvalidInput names the limit that makes no sense, and its field."""
        files = {}
        if self.cpu is not None:
            files["cpu.max"] = f"{_quota_us(self.cpu)} {_PERIOD_US}"
        if self.memory is not None:
            files["memory.max"] = str(_bytes(self.memory))
        return files


def _quota_us(text: str) -> int:
    found = _CPU.fullmatch(text.strip())
    percent = float(found[1]) if found else 0.0
    if not 1 <= percent <= _PERCENT_MAX:
        raise InvalidInput(
            f"limits.cpu: the CPU limit must be a percentage of one core, 1% to {_PERCENT_MAX}%, two cores being "
            f'"200%"; got {text!r}',
            field="limits.cpu",
        )
    return round(percent * _PERIOD_US / 100)


def _bytes(text: str) -> int:
    found = _MEMORY.fullmatch(text.strip())
    count = round(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if count < _BYTES_MIN:
        raise InvalidInput(
            f'limits.memory: the memory limit must be a size of at least 1M, like "512M" or "8G"; got {text!r}',
            field="limits.memory",
        )
    return count
