"""Every seam of Muster as a small Protocol, in domain and wire types only.

Each port has a conformance suite under tests/contract that runs on the twin in memory and on every real adapter.
"""

from muster.ports.fleet import CloudProvider, FleetView, RentedMachine, Waker
from muster.ports.jobs import (
    CapabilityClass,
    Claimed,
    Expired,
    JobIndex,
    JobLines,
    JobPage,
    JobQueue,
    JobUpkeep,
    Renewed,
    Submitted,
)
from muster.ports.life import Lifecycle
from muster.ports.links import FileLink, JobLink, NodeLink
from muster.ports.node import (
    Connector,
    GpuProbe,
    HostProbe,
    JobFiles,
    JobKind,
    PullsModels,
    RemovesModels,
    ReportProgress,
    UnloadsModels,
)
from muster.ports.stores import (
    BatchStore,
    BlobStore,
    Bus,
    CommandStore,
    DeliveryStore,
    EventLog,
    FileIndex,
    Files,
    Leases,
    NodeStore,
    ScheduleStore,
    TokenStore,
    WebhookStore,
)

__all__ = [
    "BatchStore",
    "BlobStore",
    "Bus",
    "CapabilityClass",
    "Claimed",
    "CloudProvider",
    "CommandStore",
    "Connector",
    "DeliveryStore",
    "EventLog",
    "Expired",
    "FileIndex",
    "FileLink",
    "Files",
    "FleetView",
    "GpuProbe",
    "HostProbe",
    "JobFiles",
    "JobIndex",
    "JobKind",
    "JobLines",
    "JobLink",
    "JobPage",
    "JobQueue",
    "JobUpkeep",
    "Leases",
    "Lifecycle",
    "NodeLink",
    "NodeStore",
    "PullsModels",
    "RemovesModels",
    "Renewed",
    "RentedMachine",
    "ReportProgress",
    "ScheduleStore",
    "Submitted",
    "TokenStore",
    "UnloadsModels",
    "Waker",
    "WebhookStore",
]
