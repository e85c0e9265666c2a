"""Looking at a service by its connector, with a deadline, whatever the connector does."""

import asyncio

import structlog

from muster.domain.service import Service, ServiceStatus
from muster.errors import MusterError, UpstreamFailed, UpstreamTimeout
from muster.ports import Connector

log = structlog.get_logger()

LOOK_DEADLINE_S = 10.0


async def look(connector: Connector, url: str) -> Service:
    """Return a service that runs; UpstreamFailed says why it does not."""
    try:
        async with asyncio.timeout(LOOK_DEADLINE_S):
            service = await connector.probe(url)
    except TimeoutError:
        raise UpstreamTimeout(f"{url} did not answer within {LOOK_DEADLINE_S:g} s") from None
    except MusterError as error:
        raise UpstreamFailed(error.message) from None
    except Exception as error:
        log.exception("probe_failed", connector=connector.name, url=url)
        raise UpstreamFailed(f"{connector.name} cannot look at {url}: {type(error).__name__}: {error}") from None
    if service.status is not ServiceStatus.RUNNING:
        raise UpstreamFailed(service.error or f"{url} says that it is {service.status.value}")
    return service
