"""What every place for files must do."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.errors import PayloadTooLarge, StoreUnavailable
from muster.ports import BlobStore
from muster.stores.files.directory import DirectoryFiles
from muster.stores.files.s3 import S3Files

LONG = bytes(range(256)) * 4096


async def parts(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def content(blobs: BlobStore, owner: str, name: str, start: int, end: int) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(owner, name, start, end)])


async def test_a_file_is_read_as_it_was_written_and_in_parts(blobs: BlobStore) -> None:
    await blobs.put("job-1", "1-a.bin", parts(LONG, b"end"))
    size = len(LONG) + 3
    assert await blobs.size("job-1", "1-a.bin") == size
    assert await content(blobs, "job-1", "1-a.bin", 0, size) == LONG + b"end"
    assert await content(blobs, "job-1", "1-a.bin", 5, 9) == LONG[5:9]
    assert await content(blobs, "job-1", "1-a.bin", size - 3, size) == b"end"
    assert await content(blobs, "job-1", "1-a.bin", 4, 4) == b""


async def test_an_empty_file_is_a_file(blobs: BlobStore) -> None:
    await blobs.put("job-1", "empty", parts())
    assert await blobs.size("job-1", "empty") == 0
    assert await content(blobs, "job-1", "empty", 0, 0) == b""


async def test_what_is_not_there_has_no_size(blobs: BlobStore) -> None:
    assert await blobs.size("job-1", "a") is None
    await blobs.put("job-1", "a", parts(b"x"))
    assert await blobs.size("job-1", "b") is None
    assert await blobs.size("job-2", "a") is None


async def test_a_file_that_breaks_off_is_not_there_and_leaves_what_was(blobs: BlobStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise PayloadTooLarge("too much")

    with pytest.raises(PayloadTooLarge):
        await blobs.put("job-1", "a", broken())
    assert await blobs.size("job-1", "a") is None
    assert await blobs.owners() == {}
    await blobs.put("job-1", "a", parts(b"before"))
    with pytest.raises(PayloadTooLarge):
        await blobs.put("job-1", "a", broken())
    assert await content(blobs, "job-1", "a", 0, 6) == b"before"


async def test_a_name_that_is_taken_is_replaced(blobs: BlobStore) -> None:
    for text in (b"first, and longer", b"second"):
        await blobs.put("job-1", "a", parts(text))
    assert await blobs.size("job-1", "a") == 6
    assert await content(blobs, "job-1", "a", 0, 6) == b"second"


async def test_owners_are_told_with_what_they_have_and_go_with_all_of_it(blobs: BlobStore) -> None:
    assert await blobs.owners() == {}
    await blobs.put("job-1", "a", parts(b"123"))
    await blobs.put("job-1", "b", parts(b"4567"))
    await blobs.put("~tok~file-1", "a", parts(b"8"))
    found = await blobs.owners()
    assert {owner: files.bytes for owner, files in found.items()} == {"job-1": 7, "~tok~file-1": 1}
    assert all(files.changed_at_ms > 1_700_000_000_000 for files in found.values())
    await blobs.delete("job-1")
    await blobs.delete("job-1")
    assert list(await blobs.owners()) == ["~tok~file-1"]
    assert await blobs.size("job-1", "a") is None


async def test_a_directory_that_cannot_be_used_is_the_stores_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blobs = DirectoryFiles(tmp_path / "file" / "below")
    with pytest.raises(StoreUnavailable):
        await blobs.put("job-1", "a", parts(b"x"))


async def test_a_bucket_that_cannot_be_reached_is_the_stores_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    blobs = S3Files("bucket", region="us-east-1", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(StoreUnavailable):
        await blobs.put("job-1", "a", parts(b"x"))
    with pytest.raises(StoreUnavailable):
        await blobs.size("job-1", "a")
