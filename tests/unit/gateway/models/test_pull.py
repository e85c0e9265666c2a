from msgspec.structs import replace

from muster.domain.service import Dialect
from muster.gateway.models.ollama_pull import Merged, most_room
from muster.ids import NodeId
from muster.placement.candidate import Candidate

GB = 1024**3


def server(name: str, *, total_mb: int | None, free_mb: int | None, disk_mb: int | None) -> Candidate:
    return Candidate(
        key=f"{name}/ollama",
        node_id=NodeId(name),
        service="ollama",
        connector="ollama",
        url="http://x",
        dialects=(Dialect.OLLAMA,),
        models={},
        memory_total_mb=total_mb,
        memory_free_mb=free_mb,
        disk_free_mb=disk_mb,
    )


def names(candidates: list[Candidate]) -> list[str]:
    return [candidate.node_id for candidate in candidates]


def test_bytes_of_a_part_are_added_up_and_words_are_said_once() -> None:
    merged = Merged()
    manifest: dict[str, object] = {"status": "pulling manifest"}
    part: dict[str, object] = {"status": "pulling ab", "digest": "ab", "total": 100}
    assert merged.take("a", manifest) == manifest
    assert merged.take("b", manifest) is None
    assert merged.take("a", part) == part
    assert merged.take("b", part | {"completed": 30}) == part | {"total": 200, "completed": 30}
    assert merged.take("a", part | {"completed": 50}) == part | {"total": 200, "completed": 80}


def test_a_model_goes_where_its_disk_and_then_its_memory_fit() -> None:
    small = server("small", total_mb=8_000, free_mb=8_000, disk_mb=500_000)
    large = server("large", total_mb=80_000, free_mb=5_000, disk_mb=500_000)
    full = server("full", total_mb=80_000, free_mb=80_000, disk_mb=1_000)
    silent = server("silent", total_mb=None, free_mb=None, disk_mb=None)
    assert names(most_room([small, large, full, silent], 40 * GB)) == ["large", "small", "silent"]
    assert names(most_room([silent, small, large, full], None)) == ["full", "small", "large", "silent"]
    assert most_room([replace(full, disk_free_mb=0)], None) == []
