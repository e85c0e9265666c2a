from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Call(_message.Message):
    __slots__ = ("id", "name", "body", "cancel")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    body: bytes
    cancel: bool
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., body: _Optional[bytes] = ..., cancel: _Optional[bool] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("id", "body", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: int
    body: bytes
    error: bytes
    def __init__(self, id: _Optional[int] = ..., body: _Optional[bytes] = ..., error: _Optional[bytes] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("node_id", "node_type", "nebula_ip", "public_ip", "region", "az", "pool", "labels", "instance_id", "hostname", "address", "version", "phase", "heartbeat_interval_s", "boot_id")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_TYPE_FIELD_NUMBER: _ClassVar[int]
    NEBULA_IP_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_IP_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    AZ_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    node_type: str
    nebula_ip: str
    public_ip: str
    region: str
    az: str
    pool: str
    labels: _containers.ScalarMap[str, str]
    instance_id: str
    hostname: str
    address: str
    version: str
    phase: str
    heartbeat_interval_s: float
    boot_id: str
    def __init__(self, node_id: _Optional[str] = ..., node_type: _Optional[str] = ..., nebula_ip: _Optional[str] = ..., public_ip: _Optional[str] = ..., region: _Optional[str] = ..., az: _Optional[str] = ..., pool: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., instance_id: _Optional[str] = ..., hostname: _Optional[str] = ..., address: _Optional[str] = ..., version: _Optional[str] = ..., phase: _Optional[str] = ..., heartbeat_interval_s: _Optional[float] = ..., boot_id: _Optional[str] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("node_id", "next_heartbeat_ms")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    next_heartbeat_ms: int
    def __init__(self, node_id: _Optional[str] = ..., next_heartbeat_ms: _Optional[int] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("node", "seq", "status", "reason", "resources", "workers", "services")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    node: RegisterRequest
    seq: int
    status: str
    reason: str
    resources: Resources
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    services: _containers.RepeatedCompositeFieldContainer[Service]
    def __init__(self, node: _Optional[_Union[RegisterRequest, _Mapping]] = ..., seq: _Optional[int] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., services: _Optional[_Iterable[_Union[Service, _Mapping]]] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("next_heartbeat_ms", "known", "superseded", "draining")
    NEXT_HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    next_heartbeat_ms: int
    known: bool
    superseded: bool
    draining: bool
    def __init__(self, next_heartbeat_ms: _Optional[int] = ..., known: _Optional[bool] = ..., superseded: _Optional[bool] = ..., draining: _Optional[bool] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("memory_total_mb", "memory_used_mb", "cpu_percent", "disk_total_mb", "disk_free_mb", "gpus")
    MEMORY_TOTAL_MB_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_MB_FIELD_NUMBER: _ClassVar[int]
    CPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    DISK_TOTAL_MB_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_MB_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    memory_total_mb: int
    memory_used_mb: int
    cpu_percent: float
    disk_total_mb: int
    disk_free_mb: int
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    def __init__(self, memory_total_mb: _Optional[int] = ..., memory_used_mb: _Optional[int] = ..., cpu_percent: _Optional[float] = ..., disk_total_mb: _Optional[int] = ..., disk_free_mb: _Optional[int] = ..., gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ...) -> None: ...

class Gpu(_message.Message):
    __slots__ = ("index", "name", "uuid", "memory_total_mb", "memory_used_mb", "utilization_percent", "temperature_c", "power_w")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_MB_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_MB_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_C_FIELD_NUMBER: _ClassVar[int]
    POWER_W_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    uuid: str
    memory_total_mb: int
    memory_used_mb: int
    utilization_percent: float
    temperature_c: float
    power_w: float
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., uuid: _Optional[str] = ..., memory_total_mb: _Optional[int] = ..., memory_used_mb: _Optional[int] = ..., utilization_percent: _Optional[float] = ..., temperature_c: _Optional[float] = ..., power_w: _Optional[float] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("worker_id", "index", "status", "slots", "gpu_index", "connectors", "current_jobs")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    GPU_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONNECTORS_FIELD_NUMBER: _ClassVar[int]
    CURRENT_JOBS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    index: int
    status: str
    slots: int
    gpu_index: int
    connectors: _containers.RepeatedScalarFieldContainer[str]
    current_jobs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, worker_id: _Optional[str] = ..., index: _Optional[int] = ..., status: _Optional[str] = ..., slots: _Optional[int] = ..., gpu_index: _Optional[int] = ..., connectors: _Optional[_Iterable[str]] = ..., current_jobs: _Optional[_Iterable[str]] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("name", "connector", "status", "url", "dialects", "models", "slots", "slots_busy", "gpu_index")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    DIALECTS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_BUSY_FIELD_NUMBER: _ClassVar[int]
    GPU_INDEX_FIELD_NUMBER: _ClassVar[int]
    name: str
    connector: str
    status: str
    url: str
    dialects: _containers.RepeatedScalarFieldContainer[str]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    slots: int
    slots_busy: int
    gpu_index: int
    def __init__(self, name: _Optional[str] = ..., connector: _Optional[str] = ..., status: _Optional[str] = ..., url: _Optional[str] = ..., dialects: _Optional[_Iterable[str]] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., slots: _Optional[int] = ..., slots_busy: _Optional[int] = ..., gpu_index: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "resident", "size_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    resident: bool
    size_bytes: int
    def __init__(self, name: _Optional[str] = ..., resident: _Optional[bool] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class FleetStatusRequest(_message.Message):
    __slots__ = ("node_type",)
    NODE_TYPE_FIELD_NUMBER: _ClassVar[int]
    node_type: str
    def __init__(self, node_type: _Optional[str] = ...) -> None: ...

class FleetStatusReply(_message.Message):
    __slots__ = ("total_nodes", "healthy_nodes", "unhealthy_nodes", "gpu_nodes", "total_gpus", "nodes")
    TOTAL_NODES_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_NODES_FIELD_NUMBER: _ClassVar[int]
    UNHEALTHY_NODES_FIELD_NUMBER: _ClassVar[int]
    GPU_NODES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_GPUS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    total_nodes: int
    healthy_nodes: int
    unhealthy_nodes: int
    gpu_nodes: int
    total_gpus: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    def __init__(self, total_nodes: _Optional[int] = ..., healthy_nodes: _Optional[int] = ..., unhealthy_nodes: _Optional[int] = ..., gpu_nodes: _Optional[int] = ..., total_gpus: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node_id", "node_type", "health_status", "phase", "connected", "draining", "link", "last_seen_ms", "nebula_ip", "region", "reason", "gpu_count", "models")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_TYPE_FIELD_NUMBER: _ClassVar[int]
    HEALTH_STATUS_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_MS_FIELD_NUMBER: _ClassVar[int]
    NEBULA_IP_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    node_type: str
    health_status: str
    phase: str
    connected: bool
    draining: bool
    link: str
    last_seen_ms: int
    nebula_ip: str
    region: str
    reason: str
    gpu_count: int
    models: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node_id: _Optional[str] = ..., node_type: _Optional[str] = ..., health_status: _Optional[str] = ..., phase: _Optional[str] = ..., connected: _Optional[bool] = ..., draining: _Optional[bool] = ..., link: _Optional[str] = ..., last_seen_ms: _Optional[int] = ..., nebula_ip: _Optional[str] = ..., region: _Optional[str] = ..., reason: _Optional[str] = ..., gpu_count: _Optional[int] = ..., models: _Optional[_Iterable[str]] = ...) -> None: ...
