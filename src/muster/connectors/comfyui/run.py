"""One prompt from its submit to its files.

What is true stands in ComfyUI's queue and history, which are asked again and again; the WebSocket only tells how far it
is and when asking is worth it. So an end that came before we listened, or while we could not, is an end all the same.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import structlog
from msgspec import structs

from muster.connectors.comfyui.news import Preview, Telling, read_preview
from muster.connectors.comfyui.payload import ComfyJob
from muster.connectors.comfyui.server import ComfyLimits, ComfyServer, Standing
from muster.connectors.comfyui.words import end_of
from muster.domain.job import ClaimedJob, Progress
from muster.errors import MusterError, UpstreamFailed, UpstreamTimeout
from muster.ports import JobFiles, ReportProgress

log = structlog.get_logger()

Json = dict[str, Any]

_LISTEN_S = 2.0  # a prompt does not wait longer for its listener
_AGAIN_S = 0.5
_WITHDRAW_S = 0.6  # a slot is free within a second, with what else there is to close


class ComfyRun:
    def __init__(
        self,
        server: ComfyServer,
        limits: ComfyLimits,
        job: ClaimedJob,
        asked: ComfyJob,
        report: ReportProgress,
        files: JobFiles,
    ) -> None:
        self._server = server
        self._limits = limits
        self._asked = asked
        self._report = report
        self._files = files
        self._is_first = job.attempt == 1
        self._mark = {"job_id": job.spec.job_id, "created_at": job.spec.created_at}
        # The same for all attempts: ComfyUI tells the progress of a prompt to who submitted it.
        self._client_id = f"muster-{job.spec.job_id}"
        self._telling = Telling(asked.graph)
        self._listening = asyncio.Event()
        self._news = asyncio.Event()
        self._preview: Preview | None = None
        self._preview_due = asyncio.Event()
        self._preview_url: str | None = None
        self._now_s = asyncio.get_running_loop().time

    async def run(self, work_dir: Path | None) -> Json:
        with TemporaryDirectory(dir=work_dir, prefix="comfyui-", ignore_cleanup_errors=True) as folder:
            helpers = [asyncio.create_task(self._listen()), asyncio.create_task(self._keep_previews())]
            try:
                self._telling.begin(await self._submit(Path(folder)))
                self._tell()
                entry = await self._end()
                return await self._result(entry, Path(folder))
            except BaseException:
                await self._withdraw()
                raise
            finally:
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)

    # --- submitting ---------------------------------------------------------------------------------------------------

    async def _submit(self, folder: Path) -> str:
        """Return the id of a prompt of ours: one that an earlier attempt left behind is as good as a new one."""
        if not self._is_first and (known := await self._server.find(self._mark)):
            return known
        graph = self._asked.graph_with(await self._send_images(folder))
        with suppress(TimeoutError):
            async with asyncio.timeout(_LISTEN_S):
                await self._listening.wait()
        try:
            return await self._server.submit(graph, self._client_id, self._mark, self._asked.extra_pnginfo)
        except UpstreamFailed:
            # Its answer may have been lost on the way: submitted twice, it would run twice.
            with suppress(UpstreamFailed):
                if known := await self._server.find(self._mark):
                    return known
            raise

    async def _send_images(self, folder: Path) -> dict[str, str]:
        names = {}
        for name, url in self._asked.images.items():
            path = folder / name
            await self._files.get(url, path)
            names[name] = await self._server.send_image(path, f"{self._mark['job_id']}-{name}")
        return names

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def _end(self) -> Json:
        """Return its entry in the history; raise what kept it from its end."""
        heard, heard_at_s = -1, self._now_s()
        while True:
            standing = await self._standing()
            if standing.ended is not None:
                if (error := end_of(standing.ended)) is not None:
                    raise error
                return standing.ended
            if not standing.is_known:
                raise UpstreamFailed("ComfyUI does not know the prompt any more: it was started anew, or cleared")
            if standing.waiting or heard != self._telling.heard:
                heard, heard_at_s = self._telling.heard, self._now_s()
            elif self._now_s() - heard_at_s > self._limits.silence_s:
                raise UpstreamTimeout(f"ComfyUI told nothing of the prompt for {self._limits.silence_s:g} s")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.look_every_s):
                    await self._news.wait()
            self._news.clear()

    async def _standing(self) -> Standing:
        prompt_id = self._telling.prompt_id or ""
        until_s = self._now_s() + self._limits.lost_s
        while True:
            try:
                return await self._server.standing(prompt_id)
            except UpstreamFailed:
                if self._now_s() >= until_s:
                    raise
            await asyncio.sleep(min(_AGAIN_S, self._limits.lost_s))

    async def _withdraw(self) -> None:
        """Leave nothing behind that computes for nobody, as far as that can be done in this moment."""
        try:
            async with asyncio.timeout(_WITHDRAW_S):
                prompt_id = self._telling.prompt_id or await self._server.find(self._mark)
                if prompt_id is not None:
                    await self._server.withdraw(prompt_id)
        except (MusterError, TimeoutError) as error:
            log.warning("prompt_not_withdrawn", job_id=self._mark["job_id"], error=str(error))

    # --- listening ----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            try:
                async with self._server.listening(self._client_id) as socket:
                    self._listening.set()
                    async for message in socket:
                        self._hear(message)
            except MusterError as error:
                log.debug("comfyui_not_heard", error=error.message)
            self._news.set()  # what was told meanwhile is asked for
            await asyncio.sleep(_AGAIN_S)

    def _hear(self, message: aiohttp.WSMessage) -> None:
        if message.type is aiohttp.WSMsgType.TEXT:
            if self._telling.take(message.data):
                self._tell()
                if self._telling.over:
                    self._news.set()
        elif message.type is aiohttp.WSMsgType.BINARY and self._asked.preview:
            preview = read_preview(message.data)
            if preview is not None and len(preview.data) <= self._limits.preview_bytes_max:
                self._telling.heard += 1
                self._preview = preview  # only the newest is of use
                self._preview_due.set()

    def _tell(self) -> None:
        self._report(structs.replace(self._telling.progress(), preview_url=self._preview_url))

    async def _keep_previews(self) -> None:
        count = 0
        while True:
            await self._preview_due.wait()
            self._preview_due.clear()
            preview, self._preview = self._preview, None
            if preview is None:
                continue
            try:
                kept = await self._files.put(preview.name, preview.data)
            except MusterError as error:
                log.debug("preview_not_kept", error=error.message)
            else:
                count += 1
                self._preview_url = f"{kept.url}?n={count}"  # another address: the picture there has changed
                self._tell()
            await asyncio.sleep(self._limits.preview_every_s)

    # --- what came of it ----------------------------------------------------------------------------------------------

    async def _result(self, entry: Json, folder: Path) -> Json:
        """Keep the files that it wrote; pictures for the editor only where there are no others."""
        outputs: Json = entry.get("outputs") or {}
        found = [item for node in outputs.values() for items in node.values() for item in _files_in(items)]
        kinds = {"output"} if any(item.get("type") == "output" for item in found) else {"output", "temp"}
        self._report(Progress(fraction=1.0, message="keeping its files", preview_url=self._preview_url))
        result: Json = {}
        for node_id, node in outputs.items():
            kept = {name: await self._kept(items, kinds, folder) for name, items in node.items()}
            result[node_id] = {name: items for name, items in kept.items() if items not in ([], None)}
        return {"prompt_id": self._telling.prompt_id, "outputs": {key: node for key, node in result.items() if node}}

    async def _kept(self, items: Any, kinds: set[str], folder: Path) -> Any:
        if not _files_in(items):
            return items
        kept = []
        for item in _files_in(items):
            if item.get("type") in kinds:
                path = folder / "output"
                await self._server.fetch(item, path)
                name = "-".join(filter(None, (item.get("subfolder"), item["filename"])))
                kept.append(await self._files.put(name, path))
        return kept


def _files_in(items: Any) -> list[Json]:
    return (
        [item for item in items if isinstance(item, dict) and item.get("filename")] if isinstance(items, list) else []
    )
