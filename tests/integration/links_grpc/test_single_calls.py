"""The service as a program in any language sees it: typed calls, health, reflection."""

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from muster.domain.node import Health, Phase
from muster.links.grpc import agent_control_pb2 as v1
from muster.links.grpc.service import SERVICE
from tests.contract.links.grpc_served import GrpcServed
from tests.planes import PlaneUnderTest

NODE = v1.RegisterRequest(
    node_id="gpu-1",
    node_type="gpu-worker",
    nebula_ip="10.1.0.7",
    region="eu",
    labels={"zone": "a"},
    heartbeat_interval_s=5,
    boot_id="boot-a",
)
HEARTBEAT = v1.HeartbeatRequest(
    node=NODE,
    seq=1,
    status="degraded",
    reason="llama failed",
    resources=v1.Resources(
        memory_total_mb=64_000,
        cpu_percent=0,
        gpus=[v1.Gpu(index=0, name="RTX 4090", memory_total_mb=24_564, memory_used_mb=0)],
    ),
    workers=[v1.Worker(worker_id="gpu-1-worker-0", index=0, gpu_index=0, connectors=["simulation"])],
    services=[v1.Service(name="llama", connector="openai", models=[v1.Model(name="m", resident=True)])],
)


async def ask(channel: grpc.aio.Channel, name: str, request: Any, reply: Any) -> Any:
    call = channel.unary_unary(
        f"/{SERVICE}/{name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=reply.FromString,
    )
    return await call(request)


async def register(channel: grpc.aio.Channel, request: v1.RegisterRequest) -> v1.RegisterReply:
    reply: v1.RegisterReply = await ask(channel, "Register", request, v1.RegisterReply)
    return reply


async def heartbeat(channel: grpc.aio.Channel, request: v1.HeartbeatRequest) -> v1.HeartbeatReply:
    reply: v1.HeartbeatReply = await ask(channel, "Heartbeat", request, v1.HeartbeatReply)
    return reply


async def test_a_registration_is_a_node(channel: grpc.aio.Channel, plane: PlaneUnderTest) -> None:
    reply = await register(channel, NODE)

    assert (reply.node_id, reply.next_heartbeat_ms) == ("gpu-1", 5000)
    (node,) = plane.fleet.nodes()
    assert (node.health, node.phase, node.boot_id) == (Health.REGISTERING, Phase.READY, "boot-a")
    assert (node.facts.nebula_ip, node.facts.labels, node.facts.az) == ("10.1.0.7", {"zone": "a"}, None)


async def test_a_heartbeat_alone_is_enough(channel: grpc.aio.Channel, plane: PlaneUnderTest) -> None:
    reply = await heartbeat(channel, HEARTBEAT)

    assert (reply.known, reply.next_heartbeat_ms, reply.draining) == (False, 5000, False)
    (node,) = plane.fleet.nodes()
    assert (node.health, node.reason, node.seq) == (Health.DEGRADED, "llama failed", 1)
    assert (node.resources.memory_total_mb, node.resources.memory_used_mb) == (64_000, None)
    assert node.resources.cpu_percent == 0.0
    assert (node.gpus[0].memory_used_mb, node.gpus[0].utilization_percent) == (0, None)
    assert [worker.gpu_index for worker in node.workers] == [0]
    assert [model.name for service in node.services for model in service.models] == ["m"]


async def test_one_who_says_the_least_is_heard_again_and_again(
    channel: grpc.aio.Channel, plane: PlaneUnderTest
) -> None:
    least = v1.HeartbeatRequest(node=v1.RegisterRequest(node_id="cpu-1"))
    assert not (await heartbeat(channel, least)).known
    assert (await heartbeat(channel, least)).known
    (node,) = plane.fleet.nodes()
    assert (node.health, node.heartbeat_interval_s) == (Health.HEALTHY, 30.0)


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (v1.RegisterRequest(node_id="unknown"), "node_id"),
        (v1.RegisterRequest(), "node_id"),
        (v1.RegisterRequest(node_id="a", phase="dancing"), "dancing"),
        (v1.RegisterRequest(node_id="a", heartbeat_interval_s=-1), "heartbeat_interval_s"),
        (v1.HeartbeatRequest(), "node_id"),
        (v1.HeartbeatRequest(node=NODE, status="dead"), "status"),
        (v1.HeartbeatRequest(node=NODE, workers=[v1.Worker(index=1)]), "worker_id"),
    ],
    ids=str,
)
async def test_what_does_not_fit_is_refused_and_nothing_stored(
    channel: grpc.aio.Channel, plane: PlaneUnderTest, request_: Any, told: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (register if isinstance(request_, v1.RegisterRequest) else heartbeat)(channel, request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert told in (caught.value.details() or "")
    assert plane.fleet.nodes() == []


async def test_the_fleet_is_told(channel: grpc.aio.Channel, plane: PlaneUnderTest) -> None:
    await heartbeat(channel, HEARTBEAT)
    await plane.heartbeat("cpu-1")

    fleet = await ask(channel, "GetFleetStatus", v1.FleetStatusRequest(), v1.FleetStatusReply)
    assert (fleet.total_nodes, fleet.healthy_nodes, fleet.unhealthy_nodes) == (2, 1, 1)
    assert (fleet.gpu_nodes, fleet.total_gpus) == (1, 1)
    assert [(node.node_id, node.health_status) for node in fleet.nodes] == [("cpu-1", "healthy"), ("gpu-1", "degraded")]

    fleet = await ask(channel, "GetFleetStatus", v1.FleetStatusRequest(node_type="gpu-worker"), v1.FleetStatusReply)
    (node,) = fleet.nodes
    assert (node.nebula_ip, node.region, node.models, node.gpu_count) == ("10.1.0.7", "eu", ["m"], 1)


async def test_calls_without_the_token_are_refused(plane: PlaneUnderTest) -> None:
    served = GrpcServed(plane.ingest, plane.jobs, token="secret")
    await served.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "secret"),)):
            call = channel.unary_unary(
                f"/{SERVICE}/Register", NODE.__class__.SerializeToString, v1.RegisterReply.FromString
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(NODE, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await served.stop()
    assert plane.fleet.nodes() == []


async def test_a_fault_of_ours_is_told_without_its_inside(
    channel: grpc.aio.Channel, plane: PlaneUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane.ingest, "register", None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await register(channel, NODE)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "NoneType" not in (caught.value.details() or "")


async def test_the_health_service_answers(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_tells_the_service_and_its_messages(channel: grpc.aio.Channel) -> None:
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    listed, found = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]

    assert {service.name for service in listed.list_services_response.service} >= {SERVICE, "grpc.health.v1.Health"}
    file = FileDescriptorProto.FromString(found.file_descriptor_response.file_descriptor_proto[0])
    assert file.name == "muster/v1/agent_control.proto"
    assert [method.name for method in file.service[0].method] == ["Connect", "Register", "Heartbeat", "GetFleetStatus"]
