"""What crosses processes. Unknown fields are ignored and new ones have defaults, so old and new versions talk."""

from muster.wire.agent import (
    AgentEvents,
    ClaimReply,
    ClaimRequest,
    CloseSession,
    Deregistration,
    Heartbeat,
    HeartbeatReply,
    OpenSession,
    Outcome,
    OutcomeKind,
    ProgressReport,
    ProgressReports,
    Registration,
    RegistrationReply,
    RenewReply,
    RenewRequest,
    SessionReply,
)
from muster.wire.codec import decode, encode

__all__ = [
    "AgentEvents",
    "ClaimReply",
    "ClaimRequest",
    "CloseSession",
    "Deregistration",
    "Heartbeat",
    "HeartbeatReply",
    "OpenSession",
    "Outcome",
    "OutcomeKind",
    "ProgressReport",
    "ProgressReports",
    "Registration",
    "RegistrationReply",
    "RenewReply",
    "RenewRequest",
    "SessionReply",
    "decode",
    "encode",
]
