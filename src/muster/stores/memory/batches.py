from muster.domain.batch import Batch, KeptFile


class MemoryBatches:
    """A BatchStore and a FileIndex."""

    def __init__(self) -> None:
        self._files: dict[str, KeptFile] = {}
        self._batches: dict[str, Batch] = {}
        self._cancels: dict[str, int] = {}

    async def files(self) -> list[KeptFile]:
        return sorted(self._files.values(), key=lambda file: (file.created_at_ms, file.file_id))

    async def file(self, file_id: str) -> KeptFile | None:
        return self._files.get(file_id)

    async def save_file(self, file: KeptFile) -> None:
        self._files[file.file_id] = file

    async def remove_file(self, file_id: str) -> bool:
        return self._files.pop(file_id, None) is not None

    async def batches(self) -> list[Batch]:
        return sorted(self._batches.values(), key=lambda batch: (batch.created_at_ms, batch.batch_id))

    async def batch(self, batch_id: str) -> Batch | None:
        return self._batches.get(batch_id)

    async def save(self, batch: Batch) -> None:
        self._batches[batch.batch_id] = batch

    async def remove(self, batch_id: str) -> None:
        self._batches.pop(batch_id, None)
        self._cancels.pop(batch_id, None)

    async def ask_cancel(self, batch_id: str, at_ms: int) -> None:
        self._cancels.setdefault(batch_id, at_ms)

    async def cancels(self) -> dict[str, int]:
        return dict(self._cancels)
