import msgspec

from muster.domain.batch import Batch, KeptFile
from muster.stores.valkey.server import Server

_file = msgspec.json.Decoder(KeptFile)
_batch = msgspec.json.Decoder(Batch)


class ValkeyBatches:
    """A BatchStore and a FileIndex: three hashes.

    That a batch is to be cancelled is no part of its record, which one alone writes.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._files = server.key("files")
        self._batches = server.key("batches")
        self._cancels = server.key("batches:cancels")

    async def files(self) -> list[KeptFile]:
        found = [_file.decode(body) for body in await self._server.execute("HVALS", self._files)]
        return sorted(found, key=lambda file: (file.created_at_ms, file.file_id))

    async def file(self, file_id: str) -> KeptFile | None:
        body = await self._server.execute("HGET", self._files, file_id)
        return None if body is None else _file.decode(body)

    async def save_file(self, file: KeptFile) -> None:
        await self._server.execute("HSET", self._files, file.file_id, msgspec.json.encode(file))

    async def remove_file(self, file_id: str) -> bool:
        return bool(await self._server.execute("HDEL", self._files, file_id))

    async def batches(self) -> list[Batch]:
        found = [_batch.decode(body) for body in await self._server.execute("HVALS", self._batches)]
        return sorted(found, key=lambda batch: (batch.created_at_ms, batch.batch_id))

    async def batch(self, batch_id: str) -> Batch | None:
        body = await self._server.execute("HGET", self._batches, batch_id)
        return None if body is None else _batch.decode(body)

    async def save(self, batch: Batch) -> None:
        await self._server.execute("HSET", self._batches, batch.batch_id, msgspec.json.encode(batch))

    async def remove(self, batch_id: str) -> None:
        await self._server.execute("HDEL", self._batches, batch_id)
        await self._server.execute("HDEL", self._cancels, batch_id)

    async def ask_cancel(self, batch_id: str, at_ms: int) -> None:
        await self._server.execute("HSETNX", self._cancels, batch_id, at_ms)

    async def cancels(self) -> dict[str, int]:
        flat = await self._server.execute("HGETALL", self._cancels)
        return {key.decode(): int(at_ms) for key, at_ms in zip(flat[::2], flat[1::2], strict=True)}
