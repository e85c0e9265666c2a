"""How EC2's words become ours, without EC2."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from msgspec.structs import replace

from muster.cloud.ec2 import Ec2, translated
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
from tests.unit.cloud.launches import LAUNCH

RAW: dict[str, Any] = {
    "InstanceId": "i-1",
    "State": {"Name": "running"},
    "InstanceType": "g6.xlarge",
    "LaunchTime": datetime(2026, 1, 1, tzinfo=UTC),
    "InstanceLifecycle": "spot",
    "SpotInstanceRequestId": "sir-1",
    "Tags": [{"Key": "muster:fleet", "Value": "lab"}, {"Key": "muster:idle-stop-s", "Value": "spoilt"}],
}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InsufficientInstanceCapacity", NoCapacity),
        ("Server.InsufficientInstanceCapacity", NoCapacity),
        ("SpotMaxPriceTooLow", NoCapacity),
        ("AuthFailure", CloudRefused),
        ("UnauthorizedOperation", CloudRefused),
        ("ExpiredTokenException", CloudRefused),
        ("VcpuLimitExceeded", CloudQuotaReached),
        ("InstanceLimitExceeded", CloudQuotaReached),
        ("InvalidInstanceID.NotFound", MachineNotFound),
        ("InvalidInstanceID.Malformed", MachineNotFound),
        ("IncorrectInstanceState", Conflict),
        ("IdempotentParameterMismatch", Conflict),
        ("InvalidAMIID.NotFound", InvalidInput),
        ("RequestLimitExceeded", CloudFailed),
        ("InternalError", CloudFailed),
        ("", CloudFailed),
    ],
)
def test_every_refusal_has_its_kind_and_keeps_its_words(code: str, kind: type[MusterError]) -> None:
    error = translated(ClientError({"Error": {"Code": code, "Message": "words"}}, "RunInstances"))

    assert type(error) is kind
    assert "words" in error.message


def test_only_a_token_whose_machine_is_gone_is_spent() -> None:
    codes = ("IdempotentInstanceTerminated", "IdempotentParameterMismatch")

    assert [translated(ClientError({"Error": {"Code": code}}, "x")).data["spent"] for code in codes] == [True, False]


class Recorded:
    """Stands for boto3's client: answers, or raises, and keeps what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(**arguments: Any) -> Any:
            self.asked.append((name, arguments))
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def get_paginator(self, _: str) -> Any:
        return SimpleNamespace(paginate=lambda **_: [self.answers["describe_instances"]])

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Ec2:
    monkeypatch.setattr("muster.cloud.ec2.boto3.client", lambda *_, **__: Recorded())
    return Ec2(region="us-east-1")


def answering(ec2: Ec2, **answers: Any) -> Recorded:
    recorded = Recorded(**answers)
    ec2._client = recorded  # type: ignore[assignment]  # the part of boto3's client that is used
    return recorded


async def test_a_launch_wants_metadata_version_2_and_carries_token_and_tags_without_secrets(ec2: Ec2) -> None:
    recorded = answering(ec2, run_instances={"Instances": [RAW]})
    secret = "join-secret"

    await ec2.create(replace(LAUNCH, user_data=secret, subnet="subnet-1", iam_profile="p", spot=True, disk_gb=80))

    (_, sent), *_ = recorded.asked
    assert sent["ClientToken"] == LAUNCH.token
    assert sent["MetadataOptions"]["HttpTokens"] == "required"
    assert sent["InstanceMarketOptions"]["SpotOptions"]["InstanceInterruptionBehavior"] == "stop"
    assert sent["SubnetId"] == "subnet-1"
    assert "KeyName" not in sent
    assert secret not in str(sent["TagSpecifications"])
    tags = {tag["Key"] for tag in sent["TagSpecifications"][0]["Tags"]}
    assert {"muster:fleet", "muster:node", "muster:models", "muster:owner"} <= tags
    await ec2.close()


async def test_a_machine_on_spot_that_is_marked_says_so(ec2: Ec2) -> None:
    status = {"Code": "marked-for-stop-by-experiment", "Message": "will be stopped in 2 minutes"}
    answering(
        ec2,
        describe_instances={"Reservations": [{"Instances": [RAW]}]},
        describe_spot_instance_requests={
            "SpotInstanceRequests": [{"SpotInstanceRequestId": "sir-1", "Status": status}]
        },
    )

    (machine,) = await ec2.list("lab")

    assert machine.interrupted == "will be stopped in 2 minutes"
    assert machine.idle_stop_s is None, "a tag that is no number says nothing"
    await ec2.close()


async def test_the_end_of_a_machine_on_spot_ends_its_standing_request_first(ec2: Ec2) -> None:
    recorded = answering(
        ec2,
        describe_instances={"Reservations": [{"Instances": [RAW]}]},
        cancel_spot_instance_requests={},
        terminate_instances={},
    )

    await ec2.terminate("i-1")

    names = [name for name, _ in recorded.asked]
    assert names.index("cancel_spot_instance_requests") < names.index("terminate_instances")
    await ec2.close()


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (NoCredentialsError(), CloudRefused),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), CloudFailed),
    ],
)
async def test_a_cloud_that_cannot_be_asked_is_a_typed_error(
    ec2: Ec2, problem: Exception, kind: type[MusterError]
) -> None:
    answering(ec2, start_instances=problem)

    with pytest.raises(kind):
        await ec2.start("i-1")
    await ec2.close()


async def test_a_call_that_never_ends_is_given_up(ec2: Ec2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.cloud.ec2._CALL_S", 0.05)
    released = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Stuck:
        def start_instances(self, **_: Any) -> None:
            asyncio.run_coroutine_threadsafe(released.wait(), loop).result(20)

        def close(self) -> None:
            """Nothing is open."""

    ec2._client = Stuck()  # type: ignore[assignment]  # as above
    with pytest.raises(CloudFailed, match="did not answer within"):
        await ec2.start("i-1")
    released.set()
    await ec2.close()


def test_without_a_region_the_next_step_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    with pytest.raises(SetupError, match="region"):
        Ec2()
