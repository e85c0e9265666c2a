"""A certificate that is renewed while we run is shown from then on."""

import structlog

from muster.errors import SetupError
from muster.rounds import Rounds
from muster.tls import Certificate

log = structlog.get_logger()

_LOOK_EVERY_S = 5.0


class CertificateWatch:
    """A Lifecycle: looks whether the files have changed."""

    def __init__(self, certificate: Certificate, *, every_s: float = _LOOK_EVERY_S) -> None:
        self._certificate = certificate
        self._every_s = every_s
        self._rounds = Rounds()

    async def start(self) -> None:
        self._rounds.go("certificate_renewal", self._look, self._every_s)

    async def stop(self) -> None:
        await self._rounds.stop()

    async def _look(self) -> None:
        try:
            if self._certificate.refresh():
                log.info("certificate_renewed")
        except SetupError as error:
            log.warning("certificate_not_renewed", error=error.message, next_step=error.next_step)
