"""Every setting by name, with its default and what it says."""

import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from muster.errors import SetupError

NO_GRPC = "none"
NO_MANAGEMENT = "none"
_PORT_MAX = 65_535


def _xdg(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback) / "muster"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting with its default; times in seconds, sizes in bytes unless the name says otherwise."""

    data_dir: Annotated[str, Meta(description="Where Muster keeps its store, logs and state.")] = msgspec.field(
        default_factory=lambda: str(_xdg("XDG_DATA_HOME", ".local/share"))
    )
    artifact_dir: Annotated[str, Meta(description="Where fetched models are kept, shared by all data directories.")] = (
        msgspec.field(default_factory=lambda: str(_xdg("XDG_CACHE_HOME", ".cache") / "artifacts"))
    )
    artifact_disk_bytes_max: Annotated[
        int,
        Meta(ge=0, description="All fetched models and bundles together; 0: as much as artifact_free_bytes_min lets."),
    ] = 0
    artifact_free_bytes_min: Annotated[
        int, Meta(ge=0, description="What fetching leaves free on the disk; what is used least goes before that.")
    ] = 1_073_741_824
    artifact_listen: Annotated[
        str,
        Meta(
            description="Agent: host:port where other nodes get what this one has fetched; empty: a free port at its "
            "address, `none`: nowhere."
        ),
    ] = ""
    artifact_uploads_max: Annotated[int, Meta(ge=1, description="Agent: files that others may fetch at a time.")] = 4
    artifact_upload_bytes_per_s_max: Annotated[
        int, Meta(ge=0, description="Agent: bytes per second to all who fetch from it; 0: any number.")
    ] = 0
    artifact_wait_for_fleet_s: Annotated[
        float,
        Meta(ge=0, description="Agent: how long to wait for a node that fetches the same instead of fetching it too."),
    ] = 0.0
    hub_url: Annotated[str, Meta(description="Server that `hf:` stands for, with Hugging Face's API.")] = (
        "https://huggingface.co"
    )
    hub_token: Annotated[str, Meta(description="Token for that server; empty: none.")] = ""
    listen: Annotated[str, Meta(description="host:port of the one HTTP port; several with commas.")] = "127.0.0.1:8090"
    token: Annotated[
        str,
        Meta(description="Server: an admin's token, needed off loopback. Agent and command line: the token to show."),
    ] = ""
    grpc_listen: Annotated[str, Meta(description="host:port where agents' gRPC links end; `none`: no gRPC.")] = (
        "127.0.0.1:50051"
    )
    grpc_connection_age_s: Annotated[
        float, Meta(gt=0, description="Age at which a gRPC connection is closed; its agent opens another at once.")
    ] = 1800.0
    rabbitmq_url: Annotated[
        str,
        Meta(description="amqp:// or amqps:// of the broker for links of that kind; without a path: vhost `agents`."),
    ] = ""
    rabbitmq_management_url: Annotated[
        str,
        Meta(
            description="http:// or https:// of RabbitMQ's management API, for people who look; empty: port 15672 "
            "(15671 of amqps) of the broker's host with the same login; `none`: it is not asked."
        ),
    ] = ""
    tls_cert_file: Annotated[str, Meta(description="PEM certificate of the HTTP and gRPC ports; empty: no TLS.")] = ""
    tls_key_file: Annotated[str, Meta(description="PEM key that belongs to tls_cert_file.")] = ""
    ca_file: Annotated[
        str, Meta(description="PEM certificates to trust besides the system's, for https, grpcs and amqps.")
    ] = ""
    cloud_profile: Annotated[bool, Meta(description="Serve /v2/nodes and what belongs to it.")] = True
    node_timeout_s: Annotated[
        float,
        Meta(ge=1, le=3600, description="Silence after which a node of the /v2 API, or a hive, takes no new work."),
    ] = 30.0
    task_waiting_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Tasks for one model that may wait; one more is refused with 429.")
    ] = 100
    fleet_api_url: Annotated[
        str,
        Meta(
            description="Whose fleet the gateway serves: `self` (or a URL of this control plane); empty: only services "
            "on this very machine."
        ),
    ] = "self"
    requests_per_s_max: Annotated[
        float, Meta(ge=0, description="Requests per second of one token, unless it has its own limit; 0: any number.")
    ] = 0.0
    valkey_url: Annotated[
        str, Meta(description="valkey://, redis:// or rediss:// of an outside store; empty: an embedded Valkey.")
    ] = ""
    model: Annotated[
        str,
        Meta(
            description="The model that this node serves: a built-in name, a .gguf file, a directory, https://…, hf:… "
            "or `none`. "
            "Empty: `muster up` serves smollm2-135m unless a model server already runs, `muster agent` none."
        ),
    ] = ""
    model_slots: Annotated[int, Meta(ge=1, le=64, description="Parallel requests of the model server `up` starts.")] = 4
    model_context_tokens: Annotated[
        int, Meta(ge=256, le=1_048_576, description="Context of each slot of the model server that `up` starts.")
    ] = 4096

    control_plane: Annotated[str, Meta(description="Agent: URL of the control plane.")] = "http://127.0.0.1:8090"
    link: Annotated[
        str,
        Meta(
            description="Agent: http, grpc or amqp; empty: by the scheme of control_plane, "
            "or amqp where only rabbitmq_url is set."
        ),
    ] = ""
    node_id: Annotated[str, Meta(description="This machine's id; empty: MACHINE_ID, INSTANCE_ID, host name.")] = ""
    machine_id: Annotated[str, Meta(description="As node_id, under its older name.")] = ""
    instance_id: Annotated[str, Meta(description="The cloud's id of this machine.")] = ""
    node_type: Annotated[str, Meta(description="gpu-worker, cpu-worker or your own; empty: by the GPUs found.")] = ""
    node_file: Annotated[str, Meta(description="TOML file that says which services this node runs.")] = ""
    nebula_ip: Annotated[str, Meta(description="Address of this machine in an overlay network.")] = ""
    public_ip: Annotated[str, Meta(description="Public address of this machine.")] = ""
    address: Annotated[str, Meta(description="Host under which others reach this node's services; empty: found.")] = ""
    region: Annotated[str, Meta(description="Region, for people and placement.")] = ""
    az: Annotated[str, Meta(description="Availability zone.")] = ""
    pool: Annotated[str, Meta(description="Pool that this node belongs to.")] = ""
    labels: Annotated[str, Meta(description="key=value labels of this node, with commas.")] = ""
    num_gpus: Annotated[str, Meta(description="`auto`, or how many GPUs this node must have.")] = "auto"
    worker_slots: Annotated[int, Meta(ge=1, le=1024, description="Jobs that one worker runs at a time.")] = 1
    attach: Annotated[str, Meta(description="connector=url of services that already run; several with commas.")] = ""
    adopt_within_s: Annotated[
        float,
        Meta(ge=0, description="How long services outlive an agent that was killed, for the next one to take over."),
    ] = 60.0
    cgroup_root: Annotated[
        str,
        Meta(
            description="Folder of the cgroup (v2) below which services get theirs; empty: the one that was delegated "
            "to this agent, if any; `none`."
        ),
    ] = ""
    limits_required: Annotated[
        bool,
        Meta(description="Do not start services whose limits cannot be enforced; else they start, and it is told."),
    ] = False
    discover: Annotated[
        bool, Meta(description="Look for Ollama, llama.cpp, vLLM and ComfyUI at their usual ports.")
    ] = True

    profile: Annotated[
        str, Meta(description="A machine that is described already: `basic-machine-local`; empty: none.")
    ] = ""
    comfyui_port: Annotated[
        int, Meta(ge=0, le=65_000, description="Profile: port of the first simulated ComfyUI, others follow; 0: free.")
    ] = 8188
    simulation_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Profile: port of the simulation's /health; 0: a free one.")
    ] = 8299
    process_list_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Profile: port of the process list, /pm2/list; 0: a free one.")
    ] = 9092
    event_log: Annotated[
        str,
        Meta(
            description="File for all live events of the monitor, one a line; empty: with a profile "
            "logs/monitorEventStream.log in the data directory, else none."
        ),
    ] = ""

    heartbeat_interval_s: Annotated[float, Meta(ge=0.1, le=3600, description="How often an agent reports.")] = 10.0
    queen_url: Annotated[
        str,
        Meta(description="Agent: URL of a queen that is told of the workers too, by /v1/hive-heartbeat; empty: none."),
    ] = ""
    queen_token: Annotated[str, Meta(description="Agent: the token to show to that queen.")] = ""
    queen_interval_s: Annotated[float, Meta(ge=0.1, le=3600, description="How often that queen is told.")] = 1.0
    late_intervals: Annotated[
        float, Meta(gt=1, description="Missed intervals after which a node takes no new work.")
    ] = 3.0
    stale_after_s: Annotated[float, Meta(ge=0, description="Silence until stale; 0: 4 intervals of the node.")] = 0.0
    dead_after_s: Annotated[float, Meta(ge=0, description="Silence until dead; 0: 10 intervals of the node.")] = 0.0
    forget_after_s: Annotated[float, Meta(gt=0, description="How long a dead node stays listed.")] = 3600.0
    self_suspicion_s: Annotated[
        float,
        Meta(ge=0, description="How long silence of most nodes at once is taken for the control plane's own deafness."),
    ] = 120.0
    nodes_max: Annotated[int, Meta(ge=1, description="Nodes that one fleet may have.")] = 10_000

    job_lease_s: Annotated[float, Meta(ge=1, le=3600, description="Silence of a worker until its jobs go back.")] = 15.0
    job_sweep_s: Annotated[float, Meta(ge=0.05, le=60, description="How often leases and retries are looked at.")] = 0.5
    job_retry_base_s: Annotated[float, Meta(ge=0, description="Wait before the first retry; doubles each time.")] = 1.0
    job_retry_max_s: Annotated[float, Meta(ge=0, description="Longest wait before a retry.")] = 60.0
    usage_retention_s: Annotated[
        float, Meta(ge=86_400, description="How long the usage of each day is kept; that of each hour for 8 days.")
    ] = 34_560_000.0
    worker_watts: Annotated[
        float,
        Meta(ge=0, description="Power of a worker whose node tells none, to estimate energy by; 0: it stays unknown."),
    ] = 0.0
    job_retention_s: Annotated[float, Meta(gt=0, description="How long ended jobs are kept.")] = 86_400.0
    jobs_ended_max: Annotated[int, Meta(ge=1, description="How many ended jobs are kept at most.")] = 100_000
    job_payload_bytes_max: Annotated[int, Meta(ge=1, description="Largest payload of a job.")] = 1_048_576
    job_result_bytes_max: Annotated[
        int, Meta(ge=1024, description="Largest result that a job tells itself; a larger one becomes a file.")
    ] = 1_048_576
    file_store_url: Annotated[
        str,
        Meta(
            description="s3://BUCKET/PREFIX where files of jobs are kept, for several control planes; empty: in the "
            "data directory."
        ),
    ] = ""
    file_store_endpoint_url: Annotated[
        str, Meta(description="Address of a store that speaks S3's API; empty: AWS's own.")
    ] = ""
    file_bytes_max: Annotated[int, Meta(ge=1, description="Largest file that a job may keep or a person send.")] = (
        268_435_456
    )
    files_bytes_max: Annotated[int, Meta(ge=1, description="All files together.")] = 21_474_836_480
    files_url: Annotated[
        str,
        Meta(
            description="Agent: http:// or https:// of the control plane for files; empty: by control_plane, beside "
            "gRPC the usual port."
        ),
    ] = ""
    event_log_entries_max: Annotated[int, Meta(ge=100, description="Entries kept in the event log.")] = 100_000
    commands_max: Annotated[int, Meta(ge=1, description="Commands that may be unanswered at a time.")] = 10_000
    commands_ended_max: Annotated[int, Meta(ge=100, description="Ended commands that are kept.")] = 5_000

    strategy: Annotated[str, Meta(description="balanced, least_loaded, round_robin or random.")] = "balanced"
    request_bytes_max: Annotated[int, Meta(ge=1024, description="Largest request body.")] = 33_554_432
    connect_timeout_s: Annotated[float, Meta(gt=0, description="Gateway: connecting to a worker.")] = 5.0
    first_byte_timeout_s: Annotated[float, Meta(gt=0, description="Gateway: until the answer begins.")] = 300.0
    idle_timeout_s: Annotated[float, Meta(gt=0, description="Gateway: longest silence within an answer.")] = 120.0
    patience_factor: Annotated[
        float, Meta(ge=0, description="Gateway: how many times what is usual a worker is waited for; 0: only as set.")
    ] = 4.0
    first_byte_floor_s: Annotated[float, Meta(gt=0, description="Gateway: least that a learned wait may be.")] = 10.0
    idle_floor_s: Annotated[float, Meta(gt=0, description="Gateway: the same for silence within an answer.")] = 10.0
    quarantine_max_s: Annotated[float, Meta(gt=0, description="Gateway: longest until a bad worker is tried.")] = 300.0
    gateway_workers: Annotated[
        int,
        Meta(
            ge=1, le=64, description="Processes that serve the gateway on the one port: as many as cores may be busy."
        ),
    ] = 1
    gateway_attempts_max: Annotated[int, Meta(ge=1, le=10, description="Workers tried before the first byte.")] = 3
    gateway_waiting_max: Annotated[
        int, Meta(ge=0, le=100_000, description="Requests that may wait for a free slot of one model.")
    ] = 1000
    gateway_wait_s: Annotated[float, Meta(gt=0, description="How long each of them waits at most.")] = 300.0
    gateway_keep_context: Annotated[
        bool,
        Meta(
            description="Ollama: a request for less `num_ctx` than its model is loaded with gets what is there; "
            "else it would load the model again."
        ),
    ] = True
    gateway_resume_max_s: Annotated[
        float,
        Meta(ge=0, le=86_400, description="Longest that a resumable answer is kept for its caller; 0: none is."),
    ] = 600.0
    gateway_stream_bytes_max: Annotated[
        int, Meta(ge=1024, description="Longest answer that stays resumable; it is held in memory while it comes.")
    ] = 4_194_304
    gateway_streams_bytes_max: Annotated[
        int, Meta(ge=1024, description="Resumable answers kept in the store together; beyond it new ones are not.")
    ] = 268_435_456
    image_models_dir: Annotated[
        str,
        Meta(
            description="Folder of workflows that /v1/images/generations has run, a file for each model; empty: "
            "`image_models` in the data directory."
        ),
    ] = ""
    image_timeout_s: Annotated[
        float, Meta(ge=1, le=86_400, description="How long such a request takes at most, with its wait for a worker.")
    ] = 600.0
    connections_max: Annotated[int, Meta(ge=16, description="Client connections at a time.")] = 20_000
    stream_buffer_bytes_max: Annotated[
        int, Meta(ge=65_536, description="Unsent bytes after which a reader of live events gets a snapshot instead.")
    ] = 1_048_576
    cloud_provider: Annotated[
        str, Meta(description="Where machines are rented: `ec2`; empty: nowhere, and nothing of it is loaded.")
    ] = ""
    cloud_region: Annotated[str, Meta(description="Region of the cloud; empty: as its own tools are set up.")] = ""
    cloud_endpoint_url: Annotated[
        str, Meta(description="Another address of the cloud's API: for tests and private clouds.")
    ] = ""
    cloud_fleet: Annotated[
        str, Meta(description="Tag by which this fleet's machines are told from other machines of the account.")
    ] = "muster"
    cloud_instance_type: Annotated[str, Meta(description="Type of a new machine.")] = "g6.xlarge"
    cloud_image: Annotated[str, Meta(description="Image (AMI) of a new machine.")] = ""
    cloud_subnet: Annotated[str, Meta(description="Subnet of a new machine; empty: the account's default.")] = ""
    cloud_key: Annotated[str, Meta(description="Name of the key pair for logging in to a new machine.")] = ""
    cloud_security_groups: Annotated[str, Meta(description="Ids of security groups, with commas.")] = ""
    cloud_iam_profile: Annotated[str, Meta(description="Name of the instance profile of a new machine.")] = ""
    cloud_disk_gb: Annotated[
        int, Meta(ge=0, le=65_536, description="Root disk of a new machine; 0: as large as the image's.")
    ] = 0
    cloud_spot: Annotated[bool, Meta(description="Rent spot machines: cheaper, and the cloud may take them back.")] = (
        False
    )
    cloud_models: Annotated[str, Meta(description="Models that a new machine serves, with commas.")] = ""
    cloud_package: Annotated[
        str, Meta(description="What a new machine installs by pip: a requirement, or the URL of a wheel.")
    ] = "muster[llamacpp,amqp,grpc]"
    cloud_join_token: Annotated[
        str, Meta(description="Join token that a new machine gets (`muster token create --role agent --join`).")
    ] = ""
    cloud_control_plane: Annotated[
        str, Meta(description="Where a new machine finds this control plane: http://, https://, grpc:// or grpcs://.")
    ] = ""
    cloud_rabbitmq_url: Annotated[
        str, Meta(description="Broker over which a new machine is to report; empty: to cloud_control_plane itself.")
    ] = ""
    cloud_idle_stop_s: Annotated[
        float, Meta(ge=0, description="A machine that served nothing for so long is stopped; 0: never.")
    ] = 900.0
    cloud_wake_timeout_s: Annotated[
        float, Meta(gt=0, description="How long a request waits for a machine that was started for it.")
    ] = 600.0
    model_load_timeout_s: Annotated[
        float, Meta(gt=0, description="How long a request waits for a model that is on disk to be in memory.")
    ] = 300.0
    cloud_refresh_s: Annotated[float, Meta(ge=0.1, le=600, description="How often the cloud's list is read.")] = 15.0
    cloud_machines_max: Annotated[int, Meta(ge=0, description="Machines that may run at a time.")] = 4
    cloud_hourly_usd_max: Annotated[float, Meta(ge=0, description="What all running machines may cost an hour.")] = 10.0
    cloud_run_hours_max: Annotated[
        float, Meta(ge=0, description="A machine that runs for longer is stopped, idle or not; 0: no bound.")
    ] = 24.0
    cloud_prices: Annotated[
        str, Meta(description="type=USD an hour, with commas, over the built-in prices; for spot: type:spot=USD.")
    ] = ""
    cloud_unknown_price: Annotated[
        bool, Meta(description="Rent machines although their price is not known; they count as 0.")
    ] = False
    batch_file_retention_s: Annotated[
        float, Meta(gt=0, description="How long the files of /v1/files, and ended batches, are kept.")
    ] = 2_592_000.0
    webhook_private_addresses: Annotated[
        bool, Meta(description="Let webhooks point into our own networks: this machine, 10.0.0.0/8 and the like.")
    ] = False
    webhook_timeout_s: Annotated[
        float, Meta(gt=0, le=120, description="How long a webhook's receiver may take to answer.")
    ] = 10.0
    webhook_attempts_max: Annotated[
        int, Meta(ge=1, le=100, description="How often a delivery is tried; then it has failed.")
    ] = 10
    webhook_retry_base_s: Annotated[
        float, Meta(ge=0.01, description="Wait before a delivery's second attempt; doubles each time, with jitter.")
    ] = 5.0
    webhook_retry_max_s: Annotated[float, Meta(ge=0.01, description="Longest wait between a delivery's attempts.")] = (
        3600.0
    )
    webhook_waiting_max: Annotated[
        int, Meta(ge=1, description="Deliveries of one webhook that may wait; with one more it is paused.")
    ] = 10_000
    stop_timeout_s: Annotated[float, Meta(gt=0, description="How long a stop waits for running work.")] = 10.0
    otel_endpoint: Annotated[
        str, Meta(description="http:// or https:// of an OpenTelemetry collector (OTLP over HTTP); empty: no traces.")
    ] = ""
    log_level: Annotated[str, Meta(description="debug, info, warning or error.")] = "info"

    @property
    def listen_addresses(self) -> list[tuple[str, int]]:
        return [parse_address(part) for part in self.listen.split(",") if part.strip()]

    @property
    def grpc_address(self) -> tuple[str, int] | None:
        return None if self.grpc_listen in {"", NO_GRPC} else parse_address(self.grpc_listen, "grpc_listen")

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir).expanduser().resolve()

    @property
    def image_models_path(self) -> Path:
        return (
            Path(self.image_models_dir).expanduser().resolve()
            if self.image_models_dir
            else self.data_path / "image_models"
        )

    @property
    def artifact_path(self) -> Path:
        return Path(self.artifact_dir).expanduser().resolve()

    @property
    def event_log_path(self) -> Path | None:
        if self.event_log:
            return Path(self.event_log).expanduser().resolve()
        return self.data_path / "logs" / "monitorEventStream.log" if self.profile else None

    @property
    def artifact_address(self) -> tuple[str, int] | None:
        """Return host and port, each empty or 0 where one is to be found; None: nothing is given to other nodes."""
        if self.artifact_listen == NO_GRPC:
            return None
        return parse_address(self.artifact_listen, "artifact_listen") if self.artifact_listen else ("", 0)

    @property
    def node_path(self) -> Path | None:
        return Path(self.node_file).expanduser().resolve() if self.node_file else None


def parse_address(text: str, field: str = "listen") -> tuple[str, int]:
    host, separator, port = text.strip().rpartition(":")
    if not separator or not port.isdigit() or int(port) > _PORT_MAX:
        raise SetupError(
            f"{field} must be host:port, got {text!r}", next_step="try 127.0.0.1 and a port: 127.0.0.1:8090"
        )
    return host.strip("[]"), int(port)


def parse_pairs(text: str, field: str) -> list[tuple[str, str]]:
    """Parse `a=b,c=d`; the value may contain `=`."""
    pairs = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, separator, value = part.partition("=")
        if not separator or not key.strip() or not value.strip():
            raise SetupError(f"{field} must be key=value pairs with commas, got {part!r}", next_step=f"correct {field}")
        pairs.append((key.strip(), value.strip()))
    return pairs
