"""Models and bundles of a node: where they come from, are kept, and are given to other nodes."""

import aiohttp

from muster.agent.artifacts.door import DoorRules
from muster.agent.artifacts.download import FLEET_LIMITS, Downloads
from muster.agent.artifacts.download import Limits as DownloadLimits
from muster.agent.artifacts.fetcher import FetchRules
from muster.agent.artifacts.keeper import ArtifactMeans
from muster.agent.artifacts.plan import Hub
from muster.agent.artifacts.room import DiskLimits
from muster.agent.artifacts.store import ArtifactStore
from muster.app.process import Progress
from muster.settings import Settings
from muster.system import SystemClock, system_rng
from muster.tls import trusting

_STORE_DIR = "store"


def artifact_means(
    settings: Settings, session: aiohttp.ClientSession, outside: aiohttp.ClientSession, progress: Progress
) -> ArtifactMeans:
    clock = SystemClock()
    address = settings.artifact_address
    return ArtifactMeans(
        store=ArtifactStore(settings.artifact_path / _STORE_DIR, clock),
        sources=Downloads(outside, DownloadLimits(), clock, system_rng()),
        nodes=Downloads(session, FLEET_LIMITS, clock, system_rng()),
        rules=FetchRules(
            hub=Hub(url=settings.hub_url, token=settings.hub_token),
            wait_for_fleet_s=settings.artifact_wait_for_fleet_s,
        ),
        disk=DiskLimits(
            disk_bytes_max=settings.artifact_disk_bytes_max, free_bytes_min=settings.artifact_free_bytes_min
        ),
        door=None
        if address is None
        else DoorRules(
            host=address[0],
            port=address[1],
            uploads_max=settings.artifact_uploads_max,
            bytes_per_s_max=settings.artifact_upload_bytes_per_s_max,
        ),
        progress=progress,
    )


def outside_session(settings: Settings) -> aiohttp.ClientSession:
    """Return what leads out of the fleet: by the proxy that the environment names, trusting whom the settings name."""
    trusted = trusting(settings.ca_file) if settings.ca_file else True
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted), trust_env=True)
