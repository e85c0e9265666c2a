"""Muster's jobs from Python: `Client`, and `AsyncClient` for asyncio.

    from muster.client import Client

    with Client() as muster:
        print(muster.run("simulation", {"duration_ms": 100, "result": {"n": 1}}))

Errors are those of `muster.errors`, as the control plane raised them, and those below.
"""

from muster.client.async_client import AsyncClient
from muster.client.client import Client
from muster.client.errors import JobFailed, NotTrusted, Refused, Unreachable, WaitTimedOut
from muster.client.jobs import Job, JobOptions, NewJob

__all__ = [
    "AsyncClient",
    "Client",
    "Job",
    "JobFailed",
    "JobOptions",
    "NewJob",
    "NotTrusted",
    "Refused",
    "Unreachable",
    "WaitTimedOut",
]
