import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from muster.agent.artifacts.unpack import unpack
from muster.errors import ArtifactFailed, DiskFull


def tar_of(path: Path, *members: tarfile.TarInfo, mode: str = "w:gz", **files: bytes) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # the mode is a test's parameter
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o755
            archive.addfile(member, io.BytesIO(content))
    return path


def zip_of(path: Path, *infos: zipfile.ZipInfo, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for info in infos:
            archive.writestr(info, b"x")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def room(_: int) -> None: ...


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_archives_are_unpacked(tmp_path: Path, mode: str) -> None:
    archive = tar_of(tmp_path / "a", link("here", "bin/run"), mode=mode, **{"bin/run": b"#!/bin/sh"})
    assert unpack(archive, "b", tmp_path / "tree", room) == 9
    run = tmp_path / "tree" / "bin" / "run"
    assert run.read_bytes() == b"#!/bin/sh"
    assert run.stat().st_mode & 0o100
    assert (tmp_path / "tree" / "here").resolve() == run


def test_zip_archives_are_unpacked(tmp_path: Path) -> None:
    executable = zipfile.ZipInfo("run")
    executable.external_attr = 0o100755 << 16
    archive = zip_of(tmp_path / "a", executable, **{"dir/file": b"text"})
    assert unpack(archive, "b", tmp_path / "tree", room) == 5
    assert (tmp_path / "tree" / "dir" / "file").read_bytes() == b"text"
    assert (tmp_path / "tree" / "run").stat().st_mode & 0o100


def test_what_was_there_before_is_gone(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "old").touch()
    unpack(zip_of(tmp_path / "a", new=b"1"), "b", tmp_path / "tree", room)
    assert [path.name for path in (tmp_path / "tree").iterdir()] == ["new"]


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../escaped"),
        tarfile.TarInfo("/escaped"),
        tarfile.TarInfo("a/../../escaped"),
        link("out", "../../escaped"),
        link("out", "/etc/passwd"),
        link("out", "../escaped", tarfile.LNKTYPE),
        link("device", "", tarfile.CHRTYPE),
    ],
    ids=["parent", "absolute", "inner parent", "link out", "absolute link", "hard link", "device"],
)
def test_nothing_is_written_outside_of_the_folder(tmp_path: Path, member: tarfile.TarInfo) -> None:
    archive = tar_of(tmp_path / "a", member, good=b"1")
    with pytest.raises(ArtifactFailed, match="was not unpacked") as refused:
        unpack(archive, "tools", tmp_path / "deep" / "tree", room)
    assert "tools" in refused.value.message
    assert refused.value.next_step
    assert not (tmp_path / "deep" / "tree").exists()
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a\\..\\..\\escaped"])
def test_a_zip_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactFailed, match="outside of its folder"):
        unpack(zip_of(tmp_path / "a", **{name: b"1"}), "b", tmp_path / "tree", room)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with pytest.raises(ArtifactFailed, match="is a link"):
        unpack(zip_of(tmp_path / "a", info), "b", tmp_path / "tree", room)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "a"
    archive.write_bytes(content)
    with pytest.raises(ArtifactFailed, match="was not unpacked"):
        unpack(archive, "b", tmp_path / "tree", room)
    assert not (tmp_path / "tree").exists()


def test_an_archive_that_was_cut_is_refused(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a", big=bytes(range(256)) * 1000)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ArtifactFailed, match="was not unpacked"):
        unpack(archive, "b", tmp_path / "tree", room)


def test_what_an_archive_claims_to_hold_must_fit_before_anything_is_written(tmp_path: Path) -> None:
    asked = []

    def no_room(more: int) -> None:
        asked.append(more)
        raise DiskFull("full", next_step="make room")

    with pytest.raises(DiskFull):
        unpack(zip_of(tmp_path / "a", one=b"12", two=b"345"), "b", tmp_path / "tree", no_room)
    assert asked == [5]
    assert not (tmp_path / "tree").exists()
