"""What a node fetches once and keeps: models, and the bundles that services are made of."""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct


class ArtifactKind(StrEnum):
    MODEL = "model"
    BUNDLE = "bundle"  # an archive, kept with what was in it


class ArtifactState(StrEnum):
    FETCHING = "fetching"
    ON_DISK = "on_disk"
    FAILED = "failed"  # the last attempt; nothing of it is served


class Artifact(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One artifact on one node. `name` is what it is asked for by, without secrets; `services` are using it now."""

    name: str
    kind: ArtifactKind = ArtifactKind.MODEL
    state: ArtifactState = ArtifactState.ON_DISK
    digest: str | None = None
    validator: str | None = None  # what its source calls this version: an ETag, a date, a commit
    size_bytes: int | None = None
    fraction: float | None = None  # of one that is being fetched
    fetched_at_ms: int | None = None
    last_used_at_ms: int | None = None
    services: tuple[str, ...] = ()
    pinned: bool = False  # wanted here by the node's own file
    error: str | None = None


class ArtifactFile(Struct, frozen=True, kw_only=True):
    """One file of an artifact; `path` is below the artifact's own folder, with slashes."""

    path: str
    size_bytes: int
    sha256: str


class NodeArtifacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node keeps, and where others of its fleet get it: with tickets that are signed by `ticket_key`."""

    kept: tuple[Artifact, ...] = ()
    url: str | None = None  # None: it gives nothing away
    ticket_key: str | None = None


def digest_of(files: Sequence[ArtifactFile]) -> str:
    """Name an artifact by what is in it: a file by its SHA-256, several by that of their sorted list."""
    if len(files) == 1:
        return files[0].sha256
    listed = "".join(f"{file.sha256} {file.path}\n" for file in sorted(files, key=lambda file: file.path))
    return hashlib.sha256(listed.encode()).hexdigest()
