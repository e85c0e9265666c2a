"""EC2 as a CloudProvider. boto3 blocks, so its calls run on threads of their own; each ends by its own timeouts."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, PartialCredentialsError

from muster.cloud.prices import Prices
from muster.cloud.tags import FLEET, facts_in, tags_of
from muster.domain.machine import Launch, Machine, MachineState
from muster.errors import (
    CloudFailed,
    CloudQuotaReached,
    CloudRefused,
    Conflict,
    InvalidInput,
    MachineNotFound,
    MusterError,
    NoCapacity,
    SetupError,
)

if TYPE_CHECKING:
    from mypy_boto3_ec2.client import EC2Client

T = TypeVar("T")

_THREADS = 4
_CALL_S = 45.0  # two tries of the slowest call below, and then a thread is given up
_STATES = {
    "pending": MachineState.PENDING,
    "running": MachineState.RUNNING,
    "stopping": MachineState.STOPPING,
    "stopped": MachineState.STOPPED,
    "shutting-down": MachineState.TERMINATING,
    "terminated": MachineState.TERMINATED,
}
_NO_CAPACITY = ("InsufficientInstanceCapacity", "InsufficientHost", "InsufficientCapacity", "SpotMaxPriceTooLow")
_REFUSED = (
    "AuthFailure",
    "UnauthorizedOperation",
    "InvalidClientTokenId",
    "ExpiredToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "OptInRequired",
    "AccessDenied",
    "Blocked",
)
_QUOTA = ("InstanceLimitExceeded", "VcpuLimitExceeded", "MaxSpotInstanceCountExceeded")
_UNKNOWN = ("InvalidInstanceID",)
_CONFLICT = ("Idempotent", "IncorrectInstanceState", "IncorrectState", "IncorrectSpotRequestState")
_INVALID = ("Invalid", "Missing", "Unsupported", "UnknownParameter", "DryRunOperation")
_INTERRUPTED = ("marked-for-", "instance-stopped-", "instance-terminated-by-price", "instance-terminated-no-capacity")


class Ec2:
    """A CloudProvider."""

    def __init__(self, *, region: str = "", endpoint_url: str = "", prices: Prices | None = None) -> None:
        config = Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 2, "mode": "standard"})
        try:
            self._client: EC2Client = boto3.client(
                "ec2", region_name=region or None, endpoint_url=endpoint_url or None, config=config
            )
        except NoRegionError:
            raise SetupError(
                "no region of EC2 is named", next_step="set MUSTER_CLOUD_REGION, for example us-east-1"
            ) from None
        self._prices = prices or Prices()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ec2")

    def hourly_usd(self, machine_type: str, *, spot: bool) -> float | None:
        return self._prices.hourly_usd(machine_type, spot=spot)

    async def create(self, launch: Launch) -> Machine:
        answer = await self._call(partial(self._client.run_instances, **_run_arguments(launch)))
        return _machine(answer["Instances"][0])

    async def start(self, machine_id: str) -> Machine:
        await self._call(partial(self._client.start_instances, InstanceIds=[machine_id]))
        return await self._described(machine_id)

    async def stop(self, machine_id: str) -> Machine:
        await self._call(partial(self._client.stop_instances, InstanceIds=[machine_id]))
        return await self._described(machine_id)

    async def terminate(self, machine_id: str) -> Machine:
        """End the machine, and first the standing request of one on spot, which would rent another in its place."""
        raw = await self._raw(machine_id)
        if request := raw.get("SpotInstanceRequestId"):
            await self._call(partial(self._client.cancel_spot_instance_requests, SpotInstanceRequestIds=[request]))
        await self._call(partial(self._client.terminate_instances, InstanceIds=[machine_id]))
        return await self._described(machine_id)

    async def list(self, fleet: str) -> list[Machine]:
        raw = await self._call(partial(self._list, fleet))
        notices = await self._notices(raw)
        return [_machine(one, notices.get(one.get("SpotInstanceRequestId", ""))) for one in raw]

    async def close(self) -> None:
        """Leave threads that still wait to their timeouts."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _list(self, fleet: str) -> Any:
        pages = self._client.get_paginator("describe_instances").paginate(
            Filters=[{"Name": f"tag:{FLEET}", "Values": [fleet]}]
        )
        return [one for page in pages for group in page["Reservations"] for one in group["Instances"]]

    async def _notices(self, raw: Any) -> dict[str, str]:
        """Return what the cloud says about taking back machines on spot, by request."""
        requests = sorted({one["SpotInstanceRequestId"] for one in raw if one.get("SpotInstanceRequestId")})
        if not requests:
            return {}
        answer = await self._call(
            partial(
                self._client.describe_spot_instance_requests,
                Filters=[{"Name": "spot-instance-request-id", "Values": requests}],
            )
        )
        found = ((one["SpotInstanceRequestId"], one.get("Status", {})) for one in answer["SpotInstanceRequests"])
        return {
            request: status.get("Message") or status["Code"]
            for request, status in found
            if status.get("Code", "").startswith(_INTERRUPTED)
        }

    async def _described(self, machine_id: str) -> Machine:
        return _machine(await self._raw(machine_id))

    async def _raw(self, machine_id: str) -> Any:
        answer = await self._call(partial(self._client.describe_instances, InstanceIds=[machine_id]))
        found = [one for group in answer["Reservations"] for one in group["Instances"]]
        if not found:
            raise MachineNotFound(f"EC2 knows no machine {machine_id!r}", field="machine_id")
        return found[0]

    async def _call(self, call: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(_CALL_S):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except TimeoutError:
            raise CloudFailed(f"EC2 did not answer within {_CALL_S:g} s") from None
        except ClientError as error:
            raise translated(error) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise CloudRefused(
                "no credentials for EC2 were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from None
        except BotoCoreError as error:
            raise CloudFailed(f"EC2 could not be asked: {error}") from None


def translated(error: ClientError) -> MusterError:
    """Say in our own words what EC2 said; its text names what is wrong, so it goes along."""
    code = error.response.get("Error", {}).get("Code", "").removeprefix("Server.")
    text = f"EC2: {error.response.get('Error', {}).get('Message', code)} ({code})"
    if code.startswith(_NO_CAPACITY):
        return NoCapacity(text)
    if code.startswith(_REFUSED):
        return CloudRefused(text)
    if code.startswith(_QUOTA):
        return CloudQuotaReached(text)
    if code.startswith(_UNKNOWN):
        return MachineNotFound(text, field="machine_id")
    if code.startswith(_CONFLICT):
        return Conflict(text, spent=code == "IdempotentInstanceTerminated")
    return InvalidInput(text) if code.startswith(_INVALID) else CloudFailed(text)


def _run_arguments(launch: Launch) -> dict[str, Any]:
    tags = [{"Key": key, "Value": value} for key, value in tags_of(launch).items()]
    arguments: dict[str, Any] = {
        "ClientToken": launch.token,
        "MinCount": 1,
        "MaxCount": 1,
        "ImageId": launch.image,
        "InstanceType": launch.machine_type,
        "UserData": launch.user_data,
        "InstanceInitiatedShutdownBehavior": "stop",
        # Version 2 alone: a request that a page or a service is tricked into cannot read the machine's credentials.
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1},
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }
    if launch.spot:
        # A standing request that stops rather than ends: only such a machine can be stopped and started by us.
        options = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
        arguments["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
    if launch.disk_gb:
        disk = {"VolumeSize": launch.disk_gb, "VolumeType": "gp3", "DeleteOnTermination": True}
        arguments["BlockDeviceMappings"] = [{"DeviceName": "/dev/sda1", "Ebs": disk}]
    optional = {
        "SubnetId": launch.subnet,
        "KeyName": launch.key_name,
        "SecurityGroupIds": list(launch.security_groups),
        "IamInstanceProfile": {"Name": launch.iam_profile} if launch.iam_profile else None,
    }
    return arguments | {name: value for name, value in optional.items() if value}


def _machine(raw: Any, notice: str | None = None) -> Machine:
    tags = {tag["Key"]: tag["Value"] for tag in raw.get("Tags", ())}
    started: datetime = raw["LaunchTime"]  # of the present run: EC2 sets it anew with each start
    reason = raw.get("StateReason", {}).get("Message") or raw.get("StateTransitionReason")
    return Machine(
        machine_id=raw["InstanceId"],
        state=_STATES[raw["State"]["Name"]],
        machine_type=raw["InstanceType"],
        spot=raw.get("InstanceLifecycle") == "spot",
        started_at_ms=round(started.timestamp() * 1000),
        private_ip=raw.get("PrivateIpAddress"),
        public_ip=raw.get("PublicIpAddress"),
        zone=raw.get("Placement", {}).get("AvailabilityZone"),
        reason=reason or None,
        interrupted=notice,
        **facts_in(tags),
    )
