"""Heartbeats of nodes with many services: what all have in common is said once, the rest by column.

Nothing is lost or rounded. A control plane says in its replies that it understands this; to others all is told at
length, as by every older agent.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.process import ProcessFigures
from muster.domain.service import Service
from muster.domain.worker import Worker
from muster.errors import InvalidInput
from muster.wire.agent import Heartbeat, Packed, Table
from muster.wire.codec import encode, invalid

T = TypeVar("T", bound=Struct)

_WORTH_ROWS = 16
_BYTES_MAX = 16 * 1024 * 1024  # of one table at length


def packed(message: Heartbeat) -> Heartbeat:
    """Return it as it is where there is little to gain."""
    owners = [(place, owner) for place, gpu in enumerate(message.gpus) for owner in gpu.owners or ()]
    if len(message.services) + len(message.processes) + len(message.workers) + len(owners) < _WORTH_ROWS:
        return message
    return replace(
        message,
        services=(),
        processes=(),
        workers=(),
        gpus=(),
        packed=Packed(
            services=_table(message.services),
            processes=_table(message.processes),
            workers=_table(message.workers),
            gpus=_table([replace(gpu, owners=gpu.owners and ()) for gpu in message.gpus]),
            owners=_table([owner for _, owner in owners]),
            owned=[place for place, _ in owners],
        ),
    )


def unpacked(message: Heartbeat) -> Heartbeat:
    """Undo `packed`; InvalidInput names the part that does not fit."""
    found = message.packed
    if found is None:
        return message
    gpus = list(_entries(found.gpus, Gpu, "gpus"))
    owners = _entries(found.owners, GpuOwner, "owners")
    if len(owners) != len(found.owned) or any(place >= len(gpus) for place in found.owned):
        raise InvalidInput("packed.owned must name the GPU of each owner", field="packed.owned")
    by_gpu: dict[int, list[GpuOwner]] = {}
    for place, owner in zip(found.owned, owners, strict=True):
        by_gpu.setdefault(place, []).append(owner)
    for place, of_gpu in by_gpu.items():
        gpus[place] = replace(gpus[place], owners=tuple(of_gpu))
    return replace(
        message,
        services=_entries(found.services, Service, "services"),
        processes=_entries(found.processes, ProcessFigures, "processes"),
        workers=_entries(found.workers, Worker, "workers"),
        gpus=tuple(gpus),
        packed=None,
    )


def _table(entries: Sequence[Struct]) -> Table:
    rows: list[dict[str, Any]] = msgspec.to_builtins(entries)
    same: dict[str, Any] = {}
    columns: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        column = [row.get(name) for row in rows]
        if column.count(column[0]) == len(column):
            same[name] = column[0]
        else:
            columns[name] = column
    return Table(rows=len(rows), same=same, columns=columns)


def _entries(table: Table, kind: type[T], name: str) -> tuple[T, ...]:
    for field, column in table.columns.items():
        if len(column) != table.rows:
            raise InvalidInput(
                f"packed.{name} has {table.rows} rows, and {len(column)} of {field}",
                field=f"packed.{name}.columns.{field}",
            )
    if table.rows * len(encode(table.same)) > _BYTES_MAX:
        raise InvalidInput(f"packed.{name} is too large", field=f"packed.{name}.same")
    try:
        return msgspec.convert(tuple(_rows(table)), tuple[kind, ...])  # type: ignore[valid-type]  # msgspec makes it
    except msgspec.ValidationError as error:
        told = invalid(error)
        raise InvalidInput(
            told.message, field=f"packed.{name}.{told.field}" if told.field else f"packed.{name}"
        ) from None


def _rows(table: Table) -> Iterator[dict[str, Any]]:
    """Yield the fields of each; what a row does not say is null in its column, for no field means anything by null."""
    for number in range(table.rows):
        said = {name: column[number] for name, column in table.columns.items() if column[number] is not None}
        yield table.same | said
