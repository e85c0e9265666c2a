"""Batches, files, and what is to be cancelled."""

from muster.domain.batch import Batch, BatchStatus, KeptFile, LineError, Slice
from tests.contract.stores.world import Store


def file(file_id: str, at_ms: int = 5) -> KeptFile:
    return KeptFile(
        file_id=file_id,
        place=("~t~file-1:", "a.jsonl"),
        filename="a.jsonl",
        purpose="batch",
        bytes=7,
        created_at_ms=at_ms,
        owner="t",
    )


def batch(batch_id: str, created_ms: int = 5, **fields: object) -> Batch:
    base: dict[str, object] = {
        "endpoint": "/v1/embeddings",
        "input_file_id": "file-1",
        "input_place": ("o", "n"),
        "completion_window": "24h",
        "created_at_ms": created_ms,
        "expires_at_ms": 9,
    }
    return Batch(batch_id=batch_id, **(base | fields))  # type: ignore[arg-type]  # a test's own shorthand


async def test_files_are_kept_whole_the_oldest_first(store: Store) -> None:
    await store.batches.save_file(file("b"))
    await store.batches.save_file(file("a", 4))

    assert await store.batches.files() == [file("a", 4), file("b")]
    assert await store.batches.file("b") == file("b")
    assert await store.batches.remove_file("b")
    assert not await store.batches.remove_file("b")
    assert await store.batches.file("b") is None


async def test_batches_are_kept_whole_the_oldest_first(store: Store) -> None:
    full = batch(
        "b",
        owner="t",
        metadata={"a": "b"},
        status=BatchStatus.FINALIZING,
        ending=BatchStatus.CANCELLED,
        slices=(
            Slice(first_line=1, last_line=100, start=0, end=99, completed=90, failed=10),
            Slice(first_line=101, last_line=150, start=99, end=200),
        ),
        total=150,
        completed=90,
        failed=10,
        errors=(LineError(code="c", message="m", line=3, param="p"),),
        output_file_id="o",
        at_ms={"in_progress": 4},
        told=True,
    )
    await store.batches.save(batch("b"))
    await store.batches.save(full)
    await store.batches.save(batch("a", 4))

    assert await store.batches.batches() == [batch("a", 4), full]
    assert await store.batches.batch("b") == full
    await store.batches.remove("b")
    assert await store.batches.batch("b") is None


async def test_of_cancelling_the_first_time_counts_whoever_writes_the_record(store: Store) -> None:
    await store.batches.save(batch("a"))
    await store.batches.ask_cancel("a", 7)
    await store.batches.ask_cancel("a", 8)
    await store.batches.save(batch("a", completed=5))

    assert await store.batches.cancels() == {"a": 7}
    await store.batches.remove("a")
    assert await store.batches.cancels() == {}
