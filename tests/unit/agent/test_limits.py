import pytest

from muster.agent.limits import ServiceLimits
from muster.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "written"),
    [("200%", "200000 100000"), ("50%", "50000 100000"), ("12.5%", "12500 100000"), (" 1% ", "1000 100000")],
)
def test_a_cpu_limit_is_a_share_of_one_core(text: str, written: str) -> None:
    assert ServiceLimits(cpu=text).cgroup_files() == {"cpu.max": written}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("1G", "1073741824"),
        ("512M", "536870912"),
        ("1.5g", "1610612736"),
        ("8GiB", "8589934592"),
        ("2TB", "2199023255552"),
        ("4096K", "4194304"),
        ("1048576", "1048576"),
    ],
)
def test_a_memory_limit_is_a_size(text: str, written: str) -> None:
    assert ServiceLimits(memory=text).cgroup_files() == {"memory.max": written}


@pytest.mark.parametrize("text", ["", "200", "two", "-5%", "0%", "0.5%", "1e9%", "100001%", "50%%"])
def test_a_cpu_limit_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InvalidInput, match="CPU limit") as caught:
        ServiceLimits(cpu=text).cgroup_files()
    assert caught.value.field == "limits.cpu"


@pytest.mark.parametrize("text", ["", "lots", "-1G", "0", "1", "512K", "1P", "1 GG"])
def test_a_memory_limit_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InvalidInput, match="memory limit") as caught:
        ServiceLimits(memory=text).cgroup_files()
    assert caught.value.field == "limits.memory"


def test_without_limits_nothing_is_written() -> None:
    assert ServiceLimits().cgroup_files() == {}
