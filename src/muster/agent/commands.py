"""Commands: asked for, acknowledged at once, carried out once, their results told until the control plane has them."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from muster.agent.backoff import Backoff
from muster.clock import Clock, Rng
from muster.commands.kinds import KINDS
from muster.domain.command import Command, CommandStatus
from muster.domain.job import Progress
from muster.errors import CommandNotFound, Conflict, InvalidInput, MusterError, UpstreamFailed, UpstreamTimeout
from muster.ids import CommandId, NodeId
from muster.ports import NodeLink, ReportProgress
from muster.wire import CommandBatch, CommandPoll, CommandReport, CommandReports, LogAsk, encode

log = structlog.get_logger()

Action = Callable[[dict[str, Any], ReportProgress], Awaitable[Any]]
TakeAsks = Callable[[Sequence[LogAsk]], None]

KNOWN_MAX = 256  # commands whose ids and last words are remembered
_RUNNING_MAX = 64
_RESULT_BYTES_MAX = 65_536
_REPORTS_PER_CALL = 50
_WAIT_S = 20.0
_EARLY_S = 1.0  # an answer without news that comes sooner was no wait
_PROGRESS_EVERY_S = 1.0
_RETRY_S_MAX = 30.0
_LAST_WORDS_S = 5.0


class CommandDesk:
    """A Lifecycle. Commands are asked for from the first `allow` on."""

    def __init__(
        self,
        node_id: NodeId,
        boot_id: str,
        link: NodeLink,
        actions: Mapping[str, Action],
        clock: Clock,
        rng: Rng,
        *,
        retry_s_max: float = _RETRY_S_MAX,
        take_log_asks: TakeAsks = lambda _: None,
    ) -> None:
        self._take_log_asks = take_log_asks
        self._node_id = node_id
        self._boot_id = boot_id
        self._link = link
        self._actions = actions
        self._clock = clock
        self._rng = rng
        self._backoff = Backoff(base_s=min(1.0, retry_s_max), max_s=min(_RETRY_S_MAX, max(1.0, retry_s_max)))
        self._allowed = asyncio.Event()
        self._known: OrderedDict[CommandId, CommandReport] = OrderedDict()  # the last word on each
        self._untold: dict[CommandId, CommandReport] = {}
        self._news = asyncio.Event()
        self._telling = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        if not self._loops:
            self._loops = [
                asyncio.create_task(self._ever(self._ask), name="commands"),
                asyncio.create_task(self._ever(self._tell_news), name="command reports"),
            ]

    async def stop(self) -> None:
        """Take no more, end what runs, tell what is left to be told."""
        for task in (*self._loops, *self._running):
            task.cancel()
        await asyncio.gather(*self._loops, *self._running, return_exceptions=True)
        self._loops = []
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._tell()
        except (MusterError, TimeoutError) as error:
            log.warning("command_results_not_told", commands=list(self._untold), error=str(error))

    def allow(self, *, allowed: bool) -> None:
        """Ask for commands only while they are ours: with a rival of our node id at work, they are meant for it."""
        if allowed:
            self._allowed.set()
        else:
            self._allowed.clear()

    # --- talking to the control plane --------------------------------------------------------------------------------

    async def _ask(self) -> None:
        await self._allowed.wait()
        asked_s = self._clock.monotonic_s()
        batch = await self._link.next_commands(
            CommandPoll(node_id=self._node_id, boot_id=self._boot_id, wait_s=_WAIT_S)
        )
        if not self._allowed.is_set():
            return
        self._take_log_asks(batch.log_asks)
        took_some = self._take(batch) or bool(batch.log_asks)
        await self._tell()  # before asking again: what is acknowledged does not come again
        if not took_some and self._clock.monotonic_s() - asked_s < _EARLY_S:
            await asyncio.sleep(_EARLY_S)

    async def _tell_news(self) -> None:
        await self._news.wait()
        self._news.clear()
        try:
            await self._tell()
        except BaseException:
            self._news.set()
            raise

    async def _tell(self) -> None:
        async with self._telling:
            while reports := tuple(self._untold.values())[:_REPORTS_PER_CALL]:
                try:
                    await self._link.report_commands(CommandReports(node_id=self._node_id, reports=reports))
                except InvalidInput as error:
                    log.error("command_reports_refused", count=len(reports), error=error.message)  # noqa: TRY400  # its words say it all
                for report in reports:
                    if self._untold.get(report.command_id) is report:
                        del self._untold[report.command_id]

    async def _ever(self, turn: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            try:
                await turn()
                failures = 0
            except Exception as error:
                failures += 1
                delay_s = self._backoff.delay_s(failures, self._rng)
                if isinstance(error, MusterError):
                    log.debug("commands_not_reached", error=error.message, attempt=failures, retry_in_s=delay_s)
                else:
                    log.exception("commands_fault")  # a fault of ours must not make the node deaf
                await asyncio.sleep(delay_s)

    # --- carrying out ------------------------------------------------------------------------------------------------

    def _take(self, batch: CommandBatch) -> bool:
        """Begin those that are new, as many as may run; tell the last word again on those that are not."""
        took_some = False
        for command in batch.commands:
            known = self._known.get(command.command_id)
            if known is not None:
                self._untold.setdefault(command.command_id, known)
            elif len(self._running) < _RUNNING_MAX:
                took_some = True
                self._say(CommandReport(command_id=command.command_id, status=CommandStatus.ACKED))
                left_ms = command.deadline_ms - (batch.now_ms or command.created_at_ms)
                task = asyncio.create_task(self._carry_out(command, left_ms / 1000), name=f"command {command.command}")
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        return took_some

    async def _carry_out(self, command: Command, left_s: float) -> None:
        about = {"command": command.command, "command_id": command.command_id}
        log.info("command_received", **about, by=command.issued_by, args=command.args)
        started_s = self._clock.monotonic_s()
        result, error = None, None
        try:
            result = await self._run(command, left_s)
        except asyncio.CancelledError:
            error = "the agent stopped before it was done"
            raise
        except MusterError as problem:
            error = problem.message
        except Exception as problem:
            log.exception("command_broke", **about)
            error = f"{type(problem).__name__}: {problem}"
        finally:
            status = CommandStatus.DONE if error is None else CommandStatus.FAILED
            took_s = round(self._clock.monotonic_s() - started_s, 2)
            log.info("command_ended", **about, status=status.value, took_s=took_s, error=error)
            self._say(CommandReport(command_id=command.command_id, status=status, result=result, error=error))

    async def _run(self, command: Command, left_s: float) -> Any:
        kind, action = KINDS.get(command.command), self._actions.get(command.command)
        if kind is None or action is None:
            raise CommandNotFound(f"this agent does not know it; it knows {', '.join(sorted(self._actions))}")
        if command.boot_id not in {"", self._boot_id} and not kind.for_any_boot:
            raise Conflict("it was meant for the agent as it ran before its restart: issue it anew if it still holds")
        limit = asyncio.timeout(left_s)
        try:
            async with limit:
                result = await action(command.args, self._progress_of(command.command_id))
        except TimeoutError:
            if not limit.expired():
                raise
            raise UpstreamTimeout(f"cut at its deadline, after {left_s:g} s") from None
        size_bytes = len(encode(result))
        if size_bytes > _RESULT_BYTES_MAX:
            raise UpstreamFailed(f"it was done, but its result of {size_bytes} bytes is too large to be told")
        return result

    def _progress_of(self, command_id: CommandId) -> ReportProgress:
        """Return what takes the progress of a command, and tells it now and then."""
        due_s = self._clock.monotonic_s()

        def report(progress: Progress) -> None:
            nonlocal due_s
            now_s = self._clock.monotonic_s()
            if now_s >= due_s:
                due_s = now_s + _PROGRESS_EVERY_S
                self._say(CommandReport(command_id=command_id, status=CommandStatus.ACKED, progress=progress))

        return report

    def _say(self, report: CommandReport) -> None:
        self._known[report.command_id] = report
        self._known.move_to_end(report.command_id)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        self._untold[report.command_id] = report
        self._news.set()
