"""Roles, and what each may do."""

from enum import StrEnum


class Role(StrEnum):
    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"
    CLIENT = "client"
    AGENT = "agent"


class Right(StrEnum):
    OPEN = "open"  # needs nothing, not even a token
    LOOK_UP = "look_up"  # which models there are, what the API can do
    CHAT = "chat"  # ask a model
    SUBMIT = "submit"  # give a job, or a batch of them
    FOLLOW_JOB = "follow_job"
    CANCEL_JOB = "cancel_job"
    VIEW = "view"  # the whole fleet, all jobs, all events
    READ_LOGS = "read_logs"  # what services and Muster itself say, which may hold anything
    ACT = "act"  # commands, draining, forgetting nodes, trying jobs again, webhooks
    SPEAK = "speak"  # for a node
    JOIN = "join"  # become a node with a token of its own
    MANAGE = "manage"  # everything else, above all tokens


_USE = frozenset({Right.LOOK_UP, Right.CHAT, Right.SUBMIT, Right.FOLLOW_JOB, Right.CANCEL_JOB})
_WATCH = frozenset({Right.LOOK_UP, Right.FOLLOW_JOB, Right.VIEW})

# From the least to the most. Joining is for join tokens alone, whatever the role.
GRANTS: dict[Role, frozenset[Right]] = {
    Role.AGENT: frozenset({Right.SPEAK}),
    Role.CLIENT: _USE,
    Role.VIEWER: _WATCH,
    Role.OPERATOR: _USE | _WATCH | {Right.READ_LOGS, Right.ACT},
    Role.ADMIN: frozenset(Right) - {Right.JOIN},
}
JOINING = frozenset({Right.JOIN})

# Of jobs they see and cancel only those that they submitted themselves.
SEES_OWN_JOBS_ONLY = frozenset({Role.CLIENT})


def roles_with(right: Right) -> list[Role]:
    return [role for role, rights in GRANTS.items() if right in rights]
