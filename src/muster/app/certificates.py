"""A certificate that is renewed while we run is shown from then on."""

import asyncio

import structlog

from muster.errors import SetupError
from muster.tls import Certificate

log = structlog.get_logger()

_LOOK_EVERY_S = 5.0


class CertificateWatch:
    """A Lifecycle: looks whether the files have changed."""

    def __init__(self, certificate: Certificate, *, every_s: float = _LOOK_EVERY_S) -> None:
        self._certificate = certificate
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="certificate")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                if self._certificate.refresh():
                    log.info("certificate_renewed")
            except SetupError as error:
                log.warning("certificate_not_renewed", error=error.message, next_step=error.next_step)
