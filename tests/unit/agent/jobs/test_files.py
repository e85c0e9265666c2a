import pytest

from muster.agent.jobs.files import AttemptFiles, NoFiles
from muster.domain.file import FileRef
from muster.errors import PayloadTooLarge, UpstreamFailed
from tests.contract.connectors.makers import claimed


class Kept(NoFiles):
    async def put_file(self, _: object, __: object, name: str, ___: object) -> FileRef:
        return FileRef(name=name, type="", bytes=0, sha256="", url=name)


async def test_names_that_look_the_same_when_safe_are_told_apart_and_the_same_name_stays_one() -> None:
    files = AttemptFiles(Kept(), claimed(None))
    names = [(await files.put(name, b"")).name for name in ("a b", "a/b", "a b", "c", "a?b")]
    assert names == ["a_b", "2-a_b", "a_b", "c", "3-a_b"]


async def test_an_attempt_keeps_a_bounded_number() -> None:
    files = AttemptFiles(Kept(), claimed(None))
    for number in range(256):
        await files.put(f"{number}", b"")
    with pytest.raises(PayloadTooLarge, match="256 files"):
        await files.put("one more", b"")


async def test_where_there_is_no_way_to_files_it_is_said(tmp_path) -> None:
    files = AttemptFiles(NoFiles(), claimed(None), pauses_s=())
    with pytest.raises(UpstreamFailed, match="no way to the files"):
        await files.put("a", b"")
    with pytest.raises(UpstreamFailed, match="no way to the files"):
        await files.get("/api/files/job-1/a", tmp_path / "a")
