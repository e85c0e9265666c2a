import pytest

from muster.domain.gpu import Gpu


@pytest.mark.parametrize(
    ("total_mb", "used_mb", "free_mb"), [(10, 4, 6), (10, 12, 0), (None, 4, None), (10, None, None)]
)
def test_free_memory_is_unknown_unless_both_figures_are_known(
    total_mb: int | None, used_mb: int | None, free_mb: int | None
) -> None:
    assert Gpu(index=0, memory_total_mb=total_mb, memory_used_mb=used_mb).memory_free_mb == free_mb


def test_what_a_gpu_is_outlasts_the_figures_of_how_it_is_now():
    gpu = Gpu(index=1, name="A100", uuid="GPU-1", memory_total_mb=40_000, memory_used_mb=9_000, temperature_c=70)
    assert gpu.without_figures() == Gpu(index=1, name="A100", uuid="GPU-1", memory_total_mb=40_000)
