import pytest

from muster.devices.nvidia_smi import _BASIC, _MORE, _PROCESS, parse_gpus, parse_owners
from muster.domain.gpu import Gpu, GpuFault, GpuOwner

A40 = "0, NVIDIA A40, GPU-a, 00000000:0A:00.0, 535.54, 46068, 1234, 37, 61, 123.46"


def test_each_line_is_a_gpu() -> None:
    more = ", 300.00, 1740, 0x0000000000000044, 2, 0"
    first, second = parse_gpus(f"{A40}{more}\n1{A40[1:]}{more}\n", _BASIC + _MORE)
    assert first == Gpu(
        index=0,
        name="NVIDIA A40",
        uuid="GPU-a",
        pci="00000000:0a:00.0",
        driver="535.54",
        memory_total_mb=46_068,
        memory_used_mb=1_234,
        utilization_percent=37.0,
        temperature_c=61.0,
        power_w=123.46,
        power_limit_w=300.0,
        clock_mhz=1_740,
        throttled=("power_cap", "hardware_thermal"),
        ecc_corrected=2,
        ecc_uncorrected=0,
    )
    assert second.index == 1


@pytest.mark.parametrize("cell", ["[N/A]", "N/A", "[Not Supported]", "[Unknown Error]", ""])
def test_what_is_no_figure_is_unknown(cell: str) -> None:
    row = ", ".join(["3", *[cell] * (len(_BASIC + _MORE) - 1)])
    assert parse_gpus(row, _BASIC + _MORE) == (Gpu(index=3),)


@pytest.mark.parametrize(
    ("cell", "fault"), [("[GPU is lost]", GpuFault.LOST), ("[GPU requires reset]", GpuFault.NEEDS_RESET)]
)
def test_a_lost_gpu_is_told_as_such(cell: str, fault: GpuFault) -> None:
    (gpu,) = parse_gpus(f"0, A40, GPU-a, x, 535, {cell}, {cell}, {cell}, {cell}, {cell}", _BASIC)
    assert gpu.fault is fault


def test_warnings_between_the_lines_are_no_gpus() -> None:
    assert [gpu.index for gpu in parse_gpus(f"WARNING: infoROM is corrupted\n{A40}\n\n", _BASIC)] == [0]


def test_a_process_on_two_gpus_is_told_for_each() -> None:
    owners = parse_owners(
        "GPU-a, 7, 300, /opt/a, b/blender\nGPU-b, 7, 200, /opt/a, b/blender\nGPU-a, 8, [N/A], [Not Found]\n"
        "GPU-a, [N/A], 1, x\n"
    )
    assert owners == {
        "GPU-a": (GpuOwner(name="blender", pids=(7,), memory_mb=300), GpuOwner(name="[Not Found]", pids=(8,))),
        "GPU-b": (GpuOwner(name="blender", pids=(7,), memory_mb=200),),
    }


def test_the_fields_asked_for_are_those_that_there_are() -> None:
    """There is no field for the use of the processors by a process: asking for one fails the whole question."""
    valid = {"timestamp", "gpu_name", "gpu_bus_id", "gpu_serial", "gpu_uuid", "pid", "process_name", "used_gpu_memory"}
    assert set(_PROCESS) <= valid
