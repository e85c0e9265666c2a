"""Whether a health path answers."""

import http

import aiohttp

from muster.errors import UpstreamFailed

_DEADLINE_S = 5.0


class HttpHealth:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def check(self, url: str) -> None:
        """Raise UpstreamFailed unless it answers 200."""
        try:
            async with self._session.get(
                url, timeout=aiohttp.ClientTimeout(total=_DEADLINE_S), allow_redirects=False
            ) as response:
                status = response.status
        except TimeoutError:
            raise UpstreamFailed(f"{url} did not answer within {_DEADLINE_S:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamFailed(f"{url} does not answer: {str(error) or type(error).__name__}") from None
        if status != http.HTTPStatus.OK:
            raise UpstreamFailed(f"{url} answered {status}")
