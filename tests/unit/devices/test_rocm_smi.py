from typing import Any

from msgspec import json

from muster.devices.rocm_smi import parse
from muster.domain.gpu import Gpu, GpuOwner

GIB = 2**30
CARD: dict[str, Any] = {
    "Unique ID": "0x123abc",
    "PCI Bus": "0000:C1:00.0",
    "Card series": "AMD Instinct MI250",
    "VRAM Total Memory (B)": str(64 * GIB),
    "VRAM Total Used Memory (B)": str(GIB),
    "GPU use (%)": "12",
    "Temperature (Sensor edge) (C)": "35.0",
    "Temperature (Sensor junction) (C)": "41.0",
    "Average Graphics Package Power (W)": "90.5",
}
SYSTEM = {"Driver version": "6.3.6"}


def said(**parts: Any) -> str:
    return json.encode(parts).decode()


def test_a_card_is_read_with_its_hottest_place_and_its_processes() -> None:
    (gpu,) = parse(said(card0=CARD, system=SYSTEM | {"PID77": f"python3, 1, {2 * GIB}, 0, unknown", "PID78": ""}))
    assert gpu == Gpu(
        index=0,
        name="AMD Instinct MI250",
        uuid="AMD-0x123abc",
        pci="0000:c1:00.0",
        driver="6.3.6",
        memory_total_mb=64 * 1024,
        memory_used_mb=1024,
        utilization_percent=12.0,
        temperature_c=41.0,
        power_w=90.5,
        owners=(GpuOwner(name="python3", pids=(77,), memory_mb=2048), GpuOwner(name="pid 78", pids=(78,))),
    )


def test_names_of_other_releases_are_known_too() -> None:
    other = {"Card Series": "Radeon", "Current Socket Graphics Package Power (W)": "11", "GPU use (%)": "N/A"}
    (gpu,) = parse(said(card0=other))
    assert (gpu.name, gpu.power_w, gpu.utilization_percent, gpu.memory_used_mb) == ("Radeon", 11.0, None, None)


def test_of_several_cards_nobody_knows_which_one_a_process_uses() -> None:
    gpus = parse(said(card10=CARD, card2=CARD | {"Card series": "first"}, system=SYSTEM | {"PID77": "x, 1, 5"}))
    assert [(gpu.index, gpu.name, gpu.owners) for gpu in gpus] == [
        (0, "first", None),
        (1, "AMD Instinct MI250", None),
    ]


def test_warnings_before_it_do_no_harm_and_nothing_is_nothing() -> None:
    assert len(parse("WARNING: no permission\n" + said(card0=CARD))) == 1
    assert parse("WARNING: no AMD GPUs specified") == ()
