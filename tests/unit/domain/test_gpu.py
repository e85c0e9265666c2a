import pytest

from muster.domain.gpu import Gpu


@pytest.mark.parametrize(
    ("total_mb", "used_mb", "free_mb"), [(10, 4, 6), (10, 12, 0), (None, 4, None), (10, None, None)]
)
def test_free_memory_is_unknown_unless_both_figures_are_known(
    total_mb: int | None, used_mb: int | None, free_mb: int | None
) -> None:
    assert Gpu(index=0, memory_total_mb=total_mb, memory_used_mb=used_mb).memory_free_mb == free_mb
