"""The node's own token: its secret is made here and kept here; the control plane knows a digest of it only."""

import os
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct, structs

from muster.access.tokens import digest_of, new_secret, spell
from muster.clock import Rng
from muster.errors import SetupError
from muster.ids import NodeId

log = structlog.get_logger()

KEY_FILE = "agent-token.json"
_MODE = 0o600


class _Kept(Struct, frozen=True, kw_only=True):
    node_id: NodeId
    secret: str
    token_id: str | None = None  # None: it has not joined with this secret yet


class NodeKeyFile:
    """Written before it is used: an agent that is killed while it joins says the same again."""

    def __init__(self, data_dir: Path, node_id: NodeId, rng: Rng) -> None:
        self._path = data_dir / KEY_FILE
        self._node_id = node_id
        self._rng = rng
        self._kept = self._read()

    @property
    def token(self) -> str | None:
        kept = self._kept
        return spell(kept.token_id, kept.secret) if kept is not None and kept.token_id is not None else None

    def new_secret(self) -> str:
        """Return the digest of a secret that is kept already; one that has no token yet is taken again."""
        return digest_of(self._with_secret().secret)

    def joined(self, token_id: str) -> str:
        """Return the token, once it is kept."""
        kept = structs.replace(self._with_secret(), token_id=token_id)
        self._keep(kept)
        return spell(token_id, kept.secret)

    def _with_secret(self) -> _Kept:
        return self._kept or self._keep(_Kept(node_id=self._node_id, secret=new_secret(self._rng)))

    def forget(self) -> None:
        self._kept = None
        self._path.unlink(missing_ok=True)

    def _read(self) -> _Kept | None:
        """Return what is kept, unless it is another node's: whoever copies a data directory joins anew."""
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.warning("own_token_not_read", file=str(self._path), error=str(error))
            return None
        return kept if kept.node_id == self._node_id else None

    def _keep(self, kept: _Kept) -> _Kept:
        part = self._path.with_suffix(".part")
        try:
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE), "wb") as file:
                file.write(msgspec.json.encode(kept))
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            raise SetupError(
                f"cannot keep the node's token in {self._path}: {error.strerror}",
                next_step="correct the rights or the free space of the data directory",
            ) from None
        self._kept = kept
        return kept
