"""The folder that all processes of a machine share."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from muster.agent.artifacts.store import ArtifactStore, Kept, Named
from muster.domain.artifact import ArtifactFile, ArtifactKind, digest_of
from muster.errors import Conflict, NotFound
from muster.system import SystemClock
from tests.waiting import eventually_sync

NAME = "https://host/m.gguf"


HOLDER = """
import pathlib, signal, sys
from muster.agent.artifacts.store import ArtifactStore
from muster.system import SystemClock
lease = ArtifactStore(pathlib.Path(sys.argv[1]), SystemClock()).lease(sys.argv[2])
pathlib.Path(sys.argv[3]).touch()
signal.pause()
"""


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store", SystemClock())


def keep(
    store: ArtifactStore, name: str = NAME, contents: dict[str, bytes] | None = None, *, tree: bool = False
) -> Kept:
    """Take in an artifact as a fetch does."""
    folder = store.partial(name)
    parts, files = {}, []
    for number, (path, content) in enumerate((contents or {"m.gguf": b"GGUF" + name.encode()}).items()):
        parts[path] = folder / f"{number}.part"
        parts[path].write_bytes(content)
        files.append(ArtifactFile(path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
    unpacked = None
    if tree:
        unpacked = folder / "tree"
        unpacked.mkdir()
        (unpacked / "run.sh").write_text("run")
    kept = Kept(
        digest=digest_of(files),
        kind=ArtifactKind.BUNDLE if tree else ArtifactKind.MODEL,
        files=tuple(files),
        size_bytes=sum(file.size_bytes for file in files),
        fetched_at_ms=1,
    )
    store.put(kept, parts, unpacked)
    store.name(Named(name=name, digest=kept.digest, validator='"v1"'))
    store.drop_partial(name)
    return kept


def test_what_was_taken_in_is_found_by_name_and_digest(store: ArtifactStore) -> None:
    kept = keep(store)
    assert store.find(NAME) == store.get(kept.digest) == kept
    assert store.find("https://host/other") is None
    assert store.path_of(kept).read_bytes() == b"GGUF" + NAME.encode()
    assert store.path_of(kept).name == "m.gguf"
    (entry,) = store.entries()
    assert (entry.kept, entry.validators) == (kept, {NAME: '"v1"'})
    assert store.used_bytes() == kept.size_bytes
    assert store.free_bytes() > 0


def test_several_files_are_a_folder_and_a_bundle_what_was_in_it(store: ArtifactStore) -> None:
    several = keep(store, "hf:o/r", {"a.json": b"{}", "sub/b.bin": b"b"})
    assert (store.path_of(several) / "sub" / "b.bin").read_bytes() == b"b"
    bundle = keep(store, "https://host/b.zip", tree=True)
    assert (store.path_of(bundle) / "run.sh").read_text() == "run"


def test_two_names_may_stand_for_one_artifact(store: ArtifactStore) -> None:
    one, other = keep(store, "a", {"f": b"same"}), keep(store, "b", {"f": b"same"})
    assert one == other
    (entry,) = store.entries()
    assert entry.names == ["a", "b"]
    store.remove(one.digest)
    assert store.find("a") is None
    assert store.find("b") is None


def test_the_same_bytes_as_a_bundle_are_unpacked_as_well(store: ArtifactStore) -> None:
    keep(store, "a", {"f": b"same"})
    bundle = keep(store, "b", {"f": b"same"}, tree=True)
    assert (store.path_of(bundle) / "run.sh").exists()


@pytest.mark.parametrize("damage", ["cut", "gone", "record"])
def test_what_is_not_whole_is_not_there(store: ArtifactStore, damage: str) -> None:
    kept = keep(store)
    path = store.path_of(kept)
    match damage:
        case "cut":
            path.write_bytes(b"GG")
        case "gone":
            path.unlink()
        case _:
            (store.folder / kept.digest / "kept.json").write_bytes(b"{")
    assert store.find(NAME) is None
    again = keep(store)
    assert store.find(NAME) == again
    assert store.path_of(again).read_bytes() == b"GGUF" + NAME.encode()


def test_a_byte_that_was_changed_is_seen_by_who_looks_at_all(store: ArtifactStore) -> None:
    kept = keep(store)
    assert store.is_sound(kept)
    store.path_of(kept).write_bytes(b"X" * kept.size_bytes)
    assert store.find(NAME) == kept
    assert not store.is_sound(kept)


def test_what_is_in_use_is_not_removed(store: ArtifactStore) -> None:
    kept = keep(store)
    lease = store.lease(kept.digest)
    second = store.lease(kept.digest)
    assert store.is_in_use(kept.digest)
    with pytest.raises(Conflict, match="in use"):
        store.remove(kept.digest)
    lease.release()
    assert store.is_in_use(kept.digest)
    second.release()
    assert not store.is_in_use(kept.digest)
    assert store.remove(kept.digest) == kept.size_bytes
    assert list(store.entries()) == []
    with pytest.raises(NotFound):
        store.remove(kept.digest)
    with pytest.raises(NotFound):
        store.lease(kept.digest)
    assert not store.is_in_use(kept.digest)


def test_a_process_that_is_killed_uses_nothing_any_more(store: ArtifactStore, tmp_path: Path) -> None:
    kept = keep(store)
    said = tmp_path / "said"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HOLDER,
            str(store.folder),
            kept.digest,
            str(said),
        ]
    )
    try:
        eventually_sync(said.exists, 20)
        with pytest.raises(Conflict):
            store.remove(kept.digest)
    finally:
        holder.kill()
        holder.wait(10)
    assert store.remove(kept.digest) > 0


def test_use_is_remembered(store: ArtifactStore) -> None:
    kept = keep(store)
    os.utime(store.folder / kept.digest / "used", (1, 1))
    assert store.entries()[0].last_used_ms == 1000
    store.touch(kept.digest)
    assert store.entries()[0].last_used_ms > 1000
    store.touch("not there")


def test_others_notice_that_something_changed(store: ArtifactStore) -> None:
    assert store.version() == 0
    kept = keep(store)
    before = store.version()
    store.remove(kept.digest)
    assert store.version() != before


def test_cleaning_takes_what_was_left_behind_and_nothing_else(store: ArtifactStore) -> None:
    kept = keep(store)
    part = store.partial("https://host/half") / "0.part"
    part.write_bytes(b"half")
    for name in (".new-abc-1", ".gone-abc-1"):
        (store.folder / name).mkdir()
        os.utime(store.folder / name, (1, 1))
    (store.folder / ".new-abc-2").mkdir()
    old = store.partial("https://host/forgotten")
    os.utime(old, (1, 1))
    lost = keep(store, "lost")
    (store.folder / lost.digest / "kept.json").unlink()
    assert store.clean() == 4
    assert part.exists()
    assert not old.exists()
    assert (store.folder / ".new-abc-2").exists()
    assert store.find(NAME) == kept
    assert store.named("lost") is None
