"""All answers of this gateway that can be taken up again, and those of others that callers come here for."""

import asyncio

import structlog
from msgspec.structs import replace

from muster.clock import Clock, Rng
from muster.domain.stream import KeptStream, StreamEnd, StreamPart
from muster.errors import MusterError, UpstreamFailed
from muster.gateway.continuation import continuation
from muster.gateway.dialects.call import Call
from muster.gateway.figures.streams import StreamsView
from muster.gateway.http.request import SAFE_ID, Request, bearer_token
from muster.gateway.limits import GatewayLimits
from muster.gateway.metering.meter import AccountOf
from muster.gateway.resuming.following import Followed
from muster.gateway.resuming.reading import Reading, Source
from muster.gateway.resuming.recording import Recording
from muster.gateway.resuming.succession import Succession
from muster.gateway.resuming.terms import (
    ASKED,
    Opening,
    Question,
    Terms,
    check_offset,
    decode_opening,
    keep_s_asked,
    not_found,
    secrets_of,
    without_secrets,
)
from muster.ports import StreamStore

_LEASE_S = 4.0  # after so long without a word from its gateway another one goes on with an answer
_RENEW_S = 1.0
_PARTS_PER_CALL = 100
_READ_BYTES = 1_048_576
_ID_BITS = 160

_log = structlog.get_logger()


class Keeper:
    """What comes of all answers is written together: as soon as the store has taken one lot, the next one goes."""

    def __init__(
        self,
        store: StreamStore,
        succession: Succession,
        account_of: AccountOf,
        limits: GatewayLimits,
        clock: Clock,
        rng: Rng,
    ) -> None:
        self._store = store
        self._succession = succession
        self._account_of = account_of
        self._limits = limits
        self._clock = clock
        self._rng = rng
        self._runner = f"{rng.getrandbits(64):016x}"
        self._running: dict[str, Recording] = {}
        self._changed: dict[Recording, None] = {}  # in the order in which they did
        self._unwanted: list[str] = []
        self._scribe: asyncio.Task[None] | None = None
        self._lease_s = _LEASE_S
        self._kept = self._kept_bytes = self._resumed = self._taken_over = 0

    # --- answers that begin here -------------------------------------------------------------------------------------

    def record(self, call: Call, request: Request) -> tuple[Recording, Request] | None:
        """Return who takes the answer, and the request as it is to be asked; None when it is not to be kept after all.

        Raise InvalidInput for a header that says nothing.
        """
        keep_s = keep_s_asked(request.headers, self._limits.resume_max_s)
        if keep_s is None:
            return None
        headers = {name: value for name, value in request.headers.items() if name != ASKED}
        can_go_on = continuation(call, headers) is not None
        terms = Terms(
            account=self._account_of(bearer_token(headers)).token_id,
            path=call.path,
            dialect=call.dialect,
            correlation_id=request.correlation_id,
            keep_s=keep_s,
            question=Question(without_secrets(headers), call.body) if can_go_on else None,
        )
        # Whoever asks for HTTP/1.0 gets the body as it is, without chunks.
        unframed = replace(request, headers=headers, http_1_0=True, keep_alive=False)
        return self._begin(f"stream-{self._rng.getrandbits(_ID_BITS):040x}", terms), unframed

    def _begin(self, stream_id: str, terms: Terms) -> Recording:
        now_s = self._clock.monotonic_s()
        recording = Recording(stream_id, terms, self, bytes_max=self._limits.stream_bytes_max, now_s=now_s)
        self._running[stream_id] = recording
        return recording

    def over(self, recording: Recording) -> None:
        self._running.pop(recording.stream_id, None)

    # --- writing -----------------------------------------------------------------------------------------------------

    def changed(self, recording: Recording) -> None:
        self._changed[recording] = None
        self._write_soon()

    def _write_soon(self) -> None:
        if self._scribe is None or self._scribe.done():
            self._scribe = asyncio.get_running_loop().create_task(self._write(), name="streams kept")

    async def _write(self) -> None:
        while self._changed or self._unwanted:
            lot = list(self._changed)[:_PARTS_PER_CALL]
            for recording in lot:
                del self._changed[recording]
            unwanted, self._unwanted = self._unwanted, []
            try:
                await self._write_lot(lot)
                for stream_id in unwanted:
                    await self._store.remove(stream_id)
            except MusterError as error:
                _log.warning("streams_not_kept", streams=len(lot), error=error.message)
                self._without_store(lot, error)
            except Exception:  # noqa: BLE001 - a fault of ours must end these answers, not leave their callers waiting
                _log.exception("gateway_keeping_failed")
                self._without_store(lot, UpstreamFailed("this answer could not be kept"))

    async def _write_lot(self, lot: list[Recording]) -> None:
        parts: list[tuple[Recording, StreamPart]] = []
        for recording in lot:
            part = recording.part(self._runner, self._lease_s)
            if part is not None:
                parts.append((recording, part))
        if not parts:
            return
        answers = await self._store.write([part for _, part in parts], self._limits.streams_bytes_max)
        now_s = self._clock.monotonic_s()
        for (recording, part), read_ms in zip(parts, answers, strict=True):
            if read_ms is not None:
                self._kept += bool(part.opening)
                self._kept_bytes += len(part.data)
            recording.written(part, read_ms, now_s)
            if recording.has_more:
                self._changed[recording] = None

    @staticmethod
    def _without_store(lot: list[Recording], error: MusterError) -> None:
        """Go on without it with what it does not keep; end the others, or offsets would mean nothing."""
        for recording in lot:
            if recording.opened and recording.is_kept:
                recording.fail(error)
            else:
                recording.pass_through()

    # --- callers who come back ---------------------------------------------------------------------------------------

    async def find(self, stream_id: str, offset: int, request: Request) -> Source:
        """Return where it is read; StreamNotFound when it is not there for this caller."""
        source = await self._find(stream_id, offset, request)
        self._resumed += 1
        return source

    async def _find(self, stream_id: str, offset: int, request: Request) -> Source:
        account = self._account_of(bearer_token(request.headers)).token_id
        recording = self._running.get(stream_id)
        if recording is not None:
            if recording.terms.account != account or not (recording.is_kept and recording.opened):
                raise not_found(stream_id)
            check_offset(offset, recording.shown)
            return recording
        kept, opening = await self._look(stream_id, account)
        check_offset(offset, kept.size)
        return Followed(self, self._store, stream_id, opening, kept, secrets_of(request.headers))

    async def _look(self, stream_id: str, account: str) -> tuple[KeptStream, Opening]:
        if not SAFE_ID.match(stream_id.encode()):
            raise not_found(stream_id)
        kept = await self._store.read(stream_id, 0, 0)
        if kept is None or kept.end is StreamEnd.DROPPED:
            raise not_found(stream_id)
        opening = decode_opening(kept.opening)
        if opening.account != account:
            raise not_found(stream_id)
        return kept, opening

    async def remove(self, stream_id: str, request: Request) -> None:
        """Forget an answer, and end it if it still comes, wherever that is."""
        account = self._account_of(bearer_token(request.headers)).token_id
        recording = self._running.get(stream_id)
        if recording is None:
            await self._look(stream_id, account)
        elif recording.terms.account != account:
            raise not_found(stream_id)
        else:
            recording.fail(not_found(stream_id))
        await self._store.remove(stream_id)

    # --- answers whose gateway is gone -------------------------------------------------------------------------------

    def running(self, stream_id: str) -> Recording | None:
        recording = self._running.get(stream_id)
        return recording if recording is not None and recording.is_kept and recording.opened else None

    async def take_over(
        self, stream_id: str, opening: Opening, secrets: dict[bytes, bytes], *, counted: bool
    ) -> Recording | None:
        """Go on with an answer here; None when somebody else does, or it is not there any more.

        `counted`: what was said has been charged already.
        """
        if not self._succession.is_ready(opening):
            return None
        if not await self._store.take(stream_id, self._runner, self._lease_s):
            return None
        kept = await self._store.read(stream_id, 0, _READ_BYTES)
        if kept is None:
            return None
        said = kept.data
        while len(said) < kept.size:
            more = await self._store.read(stream_id, len(said), _READ_BYTES)
            if more is None:
                return None
            said += more.data
        if not self._succession.is_ready(opening):  # any more; the lease ends by itself
            return None
        recording = self._begin(stream_id, opening)
        recording.take_up(opening.head, said)
        self._taken_over += 1
        _log.info("stream_taken_over", stream_id=stream_id[:16], bytes=len(said))
        self._succession.go_on(recording, opening, secrets, said, counted=counted)
        return recording

    # --- upkeep ------------------------------------------------------------------------------------------------------

    def sweep(self, now_s: float) -> None:
        """Say of each that it still runs, and end those that nobody came back for."""
        for stream_id, recording in list(self._running.items()):
            if recording.readers:
                recording.attended_s = now_s
            elif now_s - recording.attended_s > recording.terms.keep_s:
                recording.cancel()
                self._unwanted.append(stream_id)
                self._write_soon()
                continue
            if recording.opened and now_s - recording.written_s >= _RENEW_S:
                self.changed(recording)

    async def hand_over(self) -> None:
        """Leave what still runs to whichever gateway its callers come back to."""
        self._lease_s = 0.0
        opened = [recording for recording in self._running.values() if recording.opened and recording.is_kept]
        for recording in opened:
            exchange, recording.exchange = recording.exchange, None
            if exchange is not None:
                exchange.client_gone()
            self.changed(recording)
        if self._scribe is not None:
            await self._scribe
        for recording in opened:
            for reader in list(recording.readers):
                if isinstance(reader, Reading):
                    reader.cut()

    def view(self) -> StreamsView:
        return StreamsView(
            running=len(self._running),
            unread=sum(not recording.readers for recording in self._running.values()),
            kept_total=self._kept,
            kept_bytes_total=self._kept_bytes,
            resumed_total=self._resumed,
            taken_over_total=self._taken_over,
        )
