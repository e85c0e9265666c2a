"""A machine rented by the hour, as the cloud knows it; once its agent runs it is a node as well."""

from enum import StrEnum

from msgspec import Struct


class MachineState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


PAID = frozenset({MachineState.PENDING, MachineState.RUNNING})
GONE = frozenset({MachineState.TERMINATING, MachineState.TERMINATED})


class Machine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`machine_id` is the cloud's own, and the id of the node that its agent registers; times in ms since the epoch.

    `name` is the machine's place in the fleet: at most one that is not gone has it, which is what makes `up` safe to
    repeat. `interrupted` says why the cloud is about to take a spot machine back, or has.
    """

    machine_id: str
    state: MachineState
    machine_type: str
    fleet: str = ""
    name: str = ""
    owner: str = ""
    models: tuple[str, ...] = ()
    idle_stop_s: float | None = None  # None: as the fleet's setting says; 0: never
    spot: bool = False
    started_at_ms: int = 0  # of its present or last run
    private_ip: str | None = None
    public_ip: str | None = None
    zone: str | None = None
    reason: str | None = None
    interrupted: str | None = None


class Launch(Struct, frozen=True, kw_only=True):
    """What a new machine is to be. With the same `token` it is made once, however often that is asked.

    `user_data` holds secrets: a Launch is never logged.
    """

    token: str
    fleet: str
    name: str
    machine_type: str
    image: str
    models: tuple[str, ...] = ()
    owner: str = ""
    idle_stop_s: float | None = None
    spot: bool = False
    subnet: str = ""
    key_name: str = ""
    security_groups: tuple[str, ...] = ()
    iam_profile: str = ""
    disk_gb: int = 0  # 0: as the image has it
    user_data: str = ""
