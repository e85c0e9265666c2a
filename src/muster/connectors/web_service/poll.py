"""A service that takes work and does it later: its status is asked until it has ended."""

import asyncio
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from muster.connectors import json_path
from muster.connectors.web_service.config import Polling, WebRequest
from muster.connectors.web_service.exchange import Exchange
from muster.domain.job import Progress
from muster.errors import InvalidInput, MusterError, UpstreamFailed
from muster.ports import ReportProgress

_TELL_S = 0.8  # a slot is free within a second
_MISSED_MAX = 5  # answers in a row; a service that is started anew has forgotten the work anyway
_PERCENT = 100
_CHARS_MAX = 1000


async def poll(
    exchange: Exchange, polling: Polling, path: str, method: str, asked: WebRequest, report: ReportProgress
) -> Any:
    first = await exchange.ask(path, method, asked)
    work_id = quote(str(json_path.demand(first, polling.id, "the answer to the job")), safe="")
    try:
        return await _end(exchange, polling, work_id, report)
    except BaseException:
        if polling.cancel is not None:
            with suppress(MusterError, TimeoutError):
                await exchange.tell(polling.cancel.replace("{id}", work_id), polling.cancel_method, _TELL_S)
        raise


async def _end(exchange: Exchange, polling: Polling, work_id: str, report: ReportProgress) -> Any:
    missed = 0
    while True:
        try:
            status = await exchange.ask(polling.status.replace("{id}", work_id), "GET")
            missed = 0
        except UpstreamFailed as error:
            missed += 1
            if missed >= _MISSED_MAX:
                raise
            await asyncio.sleep(error.retry_after_s or polling.every_s)
            continue
        state = json_path.find(status, polling.state)
        if state in polling.done:
            return json_path.find(status, polling.result)
        if state in polling.failed:
            reason = json_path.find(status, polling.error)
            raise InvalidInput(f"the service says that the work is {state}: {str(reason or 'no reason')[:_CHARS_MAX]}")
        report(Progress(fraction=_fraction(status, polling.progress), message=str(state)[:_CHARS_MAX]))
        await asyncio.sleep(polling.every_s)


def _fraction(status: Any, path: str | None) -> float | None:
    return fraction_of(None if path is None else json_path.find(status, path))


def fraction_of(value: Any) -> float | None:
    """Read how far it is, as a part of 1 or of 100."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _PERCENT:
        return None
    return value if value <= 1 else value / _PERCENT
