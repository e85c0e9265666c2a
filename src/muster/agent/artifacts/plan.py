"""Which files an artifact has and where each of them is: at its source, or at another node of the fleet."""

import difflib
import re
from collections.abc import Sequence
from typing import NoReturn
from urllib.parse import quote

from msgspec import Struct, field

from muster.agent.artifacts.download import Downloads, Wanted
from muster.domain.artifact import ArtifactFile, ArtifactKind, digest_of
from muster.domain.source import HubSource, WebSource, is_safe_path
from muster.errors import ArtifactFailed
from muster.wire import ArtifactHolder

_LIST_BYTES_MAX = 33_554_432
_FILES_MAX = 10_000
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf\Z")
_ALL_PARTS = re.compile(r"-00001-of-(\d{5})\.gguf\Z")
_LEFT_OUT = frozenset({".gitattributes", ".gitignore"})


class Plan(Struct, frozen=True, kw_only=True):
    """`place` is for people; `digest` what the whole must have; `validator` what the source calls this version."""

    place: str
    files: tuple[Wanted, ...]
    digest: str | None = None
    validator: str | None = None
    from_fleet: bool = False

    @property
    def size_bytes(self) -> int | None:
        sizes = [file.size_bytes for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


class Manifest(Struct, frozen=True, kw_only=True):
    """What a node says of an artifact that it gives away."""

    digest: str
    kind: ArtifactKind
    files: tuple[ArtifactFile, ...]


class _Lfs(Struct):
    sha256: str | None = None
    size: int | None = None


class _Sibling(Struct):
    name: str = field(name="rfilename")
    size: int | None = None
    lfs: _Lfs | None = None


class _Revision(Struct):
    sha: str
    siblings: tuple[_Sibling, ...] = ()


class Hub(Struct, frozen=True, kw_only=True):
    """A server with Hugging Face's API; `token` only where it asks for one."""

    url: str = "https://huggingface.co"
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def plan_of_url(source: WebSource) -> Plan:
    file = Wanted(path=source.file_name, url=source.url, shown=source.name, sha256=source.sha256)
    return Plan(place=source.name, files=(file,), digest=source.sha256)


async def plan_of_hub(source: HubSource, hub: Hub, downloads: Downloads) -> Plan:
    """Ask for the files of a revision, and name them by its commit: what is fetched then is of one piece."""
    repo = quote(source.repo)
    url = f"{hub.url.rstrip('/')}/api/models/{repo}/revision/{quote(source.revision, safe='')}?blobs=true"
    listed = await downloads.read_json(url, _Revision, hub.headers, _LIST_BYTES_MAX)
    chosen = _chosen(source, [sibling for sibling in listed.siblings if sibling.name not in _LEFT_OUT])
    return Plan(
        place=source.name,
        files=tuple(
            Wanted(
                path=sibling.name,
                url=f"{hub.url.rstrip('/')}/{repo}/resolve/{quote(listed.sha)}/{quote(sibling.name)}",
                shown=f"{source.name} ({sibling.name})" if len(chosen) > 1 else source.name,
                size_bytes=(sibling.lfs and sibling.lfs.size) or sibling.size,
                sha256=sibling.lfs.sha256 if sibling.lfs is not None else None,
                headers=hub.headers,
            )
            for sibling in chosen
        ),
        validator=listed.sha,
    )


async def plan_of_holder(holder: ArtifactHolder, downloads: Downloads) -> Plan:
    headers = {"Authorization": f"Bearer {holder.ticket}"}
    url = f"{holder.url.rstrip('/')}/artifacts/{holder.digest}"
    manifest = await downloads.read_json(url, Manifest, headers, _LIST_BYTES_MAX)
    fits = digest_of(manifest.files) == holder.digest and all(is_safe_path(file.path) for file in manifest.files)
    if not fits or not manifest.files:
        raise ArtifactFailed(f"{holder.node_id} tells of another artifact than was asked for", next_step="try again")
    return Plan(
        place=f"node {holder.node_id}",
        files=tuple(
            Wanted(
                path=file.path,
                url=f"{url}/{quote(file.path)}",
                shown=f"{url}/{quote(file.path)}",
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                headers=headers,
                moves=False,
            )
            for file in manifest.files
        ),
        digest=holder.digest,
        validator=holder.validator,
        from_fleet=True,
    )


def _chosen(source: HubSource, siblings: Sequence[_Sibling]) -> list[_Sibling]:
    """Return the one file that is named with the further parts of it, or all of a repository with one model."""
    by_name = {sibling.name: sibling for sibling in siblings if is_safe_path(sibling.name)}
    if len(by_name) > _FILES_MAX:
        raise ArtifactFailed(f"{source.name} has more than {_FILES_MAX} files", next_step="name one of them")
    if source.path is not None:
        if source.path not in by_name:
            _missing(source, source.path, list(by_name))
        parts = _ALL_PARTS.search(source.path)
        stem = source.path[: parts.start()] if parts else None
        return [
            sibling
            for name, sibling in by_name.items()
            if name == source.path or (stem is not None and _LATER_PART.search(name) and name.startswith(f"{stem}-"))
        ]
    models = [name for name in by_name if name.endswith(".gguf") and not _LATER_PART.search(name)]
    models = [name for name in models if not name.rpartition("/")[2].startswith("mmproj")]
    if len(models) > 1:
        raise ArtifactFailed(
            f"{source.name} has several models: {', '.join(sorted(models)[:20])}",
            next_step=f"name one: {source.name.partition('@')[0]}/{min(models)}",
        )
    if not by_name:
        raise ArtifactFailed(f"{source.name} has no files", next_step="check the name, and the revision")
    return list(by_name.values())


def _missing(source: HubSource, path: str, known: list[str]) -> NoReturn:
    near = difflib.get_close_matches(path, known, n=3, cutoff=0.5)
    meant = f"; did you mean {' or '.join(near)}?" if near else f"; it has {', '.join(sorted(known)[:10])}"
    raise ArtifactFailed(
        f"{source.repo} has no file {path!r} at {source.revision}{meant}", next_step="correct the name"
    )
