"""What a service takes of the GPUs of its node: the sum of what they tell, and unknown where one does not tell."""

import pytest
from msgspec.structs import replace

from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.process import UNMEASURED, ProcessFigures
from muster.domain.service import Service, ServiceStatus
from muster.wire.hives import GpuShare, gpu_share

MB = 1024 * 1024
SERVICE = Service(name="llama", connector="llamacpp", status=ServiceStatus.RUNNING, pid=7, gpu_index=0)
GPU = Gpu(index=0, memory_total_mb=24_564, owners=())


def owner(
    name: str = "llama", *, service: bool = True, memory_mb: int | None = None, utilization_percent: float | None = None
) -> GpuOwner:
    return GpuOwner(name=name, service=service, memory_mb=memory_mb, utilization_percent=utilization_percent)


def test_the_share_of_a_service_is_that_of_its_process_where_no_gpus_are_told() -> None:
    process = ProcessFigures(name="llama", group="g", pid=7, gpu_utilization_percent=85.0, gpu_memory_mb=8_192)
    assert gpu_share(replace(SERVICE, memory_total_bytes=24_564 * MB), process, ()) == GpuShare(
        utilization_percent=85.0, memory_mb=8_192, memory_total_mb=24_564
    )
    assert gpu_share(SERVICE, UNMEASURED, ()) == GpuShare()


@pytest.mark.parametrize(
    ("gpus", "share"),
    [
        ([GPU], GpuShare(utilization_percent=0.0, memory_mb=0, memory_total_mb=24_564)),
        ([replace(GPU, owners=None)], GpuShare(memory_total_mb=24_564)),
        ([replace(GPU, memory_total_mb=None)], GpuShare(utilization_percent=0.0, memory_mb=0)),
        ([replace(GPU, index=1)], GpuShare()),
        (
            [replace(GPU, owners=(owner(service=False, memory_mb=5), owner("other", memory_mb=7)))],
            GpuShare(utilization_percent=0.0, memory_mb=0, memory_total_mb=24_564),
        ),
    ],
    ids=["idle", "does not tell who", "of unknown size", "not its own", "used by others"],
)
def test_who_is_not_among_the_owners_takes_nothing_of_a_gpu_that_tells_them(gpus: list[Gpu], share: GpuShare) -> None:
    assert gpu_share(SERVICE, UNMEASURED, gpus) == share


def test_the_share_on_several_gpus_is_the_sum_of_those_it_uses() -> None:
    one = replace(GPU, owners=(owner(memory_mb=1_000, utilization_percent=30.04), owner("other", memory_mb=9)))
    two = replace(GPU, index=1, owners=(owner(memory_mb=500, utilization_percent=12.0),))
    spare = replace(GPU, index=2)
    assert gpu_share(SERVICE, UNMEASURED, [one, two, spare]) == GpuShare(
        utilization_percent=42.0, memory_mb=1_500, memory_total_mb=49_128
    )
    assert gpu_share(replace(SERVICE, gpu_index=2), UNMEASURED, [two, spare]).memory_total_mb == 49_128, (
        "the one it is bound to counts, though it takes nothing of it"
    )


@pytest.mark.parametrize(
    ("second", "share"),
    [
        (
            replace(GPU, index=1, owners=(owner(memory_mb=500),)),
            GpuShare(memory_mb=1_500, memory_total_mb=49_128),
        ),
        (
            replace(GPU, index=1, owners=(owner(utilization_percent=12.5),)),
            GpuShare(utilization_percent=42.5, memory_total_mb=49_128),
        ),
        (
            Gpu(index=1, owners=(owner(memory_mb=500, utilization_percent=12.5),)),
            GpuShare(utilization_percent=42.5, memory_mb=1_500),
        ),
    ],
    ids=["load", "memory", "size"],
)
def test_a_sum_with_an_unknown_part_is_unknown(second: Gpu, share: GpuShare) -> None:
    first = replace(GPU, owners=(owner(memory_mb=1_000, utilization_percent=30.0),))
    assert gpu_share(SERVICE, UNMEASURED, [first, second]) == share
