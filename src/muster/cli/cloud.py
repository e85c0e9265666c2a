"""`muster cloud`: machines rented by the hour, from the command line of whoever holds the cloud's credentials."""

import getpass
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from msgspec import structs

from muster.cli.client import FIRST_TOKEN_TIMEOUT_S, Client, Refused
from muster.cli.options import AsJson, ServerUrl, settings_from
from muster.cli.rented import PROVIDER_PAUSE_S, Rented, describe, drain, is_serving, nodes_by_machine
from muster.cli.tables import Column, duration, print_json, show_rows
from muster.domain.machine import GONE, PAID, Launch, Machine, MachineState
from muster.errors import CloudFailed, MusterError, SetupError
from muster.settings import Settings

if TYPE_CHECKING:
    from muster.ports import CloudProvider  # with it comes half of the control plane

cloud = typer.Typer(help="Machines rented by the hour.", no_args_is_help=True)

T = TypeVar("T")
Machines = Annotated[
    list[str] | None, typer.Argument(metavar="[MACHINE]...", help="Ids or names; without one all of this fleet.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@cloud.command()
def up(
    name: Annotated[str, typer.Option(metavar="NAME", help="What the machines are called in the fleet.")] = "worker",
    count: Annotated[int, typer.Option(min=1, max=100, help="How many there are to be.")] = 1,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Models that they serve, with commas.")
    ] = None,
    instance_type: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Type, for example g6.xlarge.")
    ] = None,
    image: Annotated[str | None, typer.Option(metavar="AMI", help="Image to boot from.")] = None,
    spot: Annotated[bool, typer.Option("--spot", help="On spot: cheaper, and may be taken back.")] = False,
    subnet: Annotated[str | None, typer.Option(metavar="ID", help="Subnet.")] = None,
    key: Annotated[str | None, typer.Option(metavar="NAME", help="Key pair for logging in.")] = None,
    security_groups: Annotated[str | None, typer.Option(metavar="IDS", help="Security groups, with commas.")] = None,
    iam_profile: Annotated[str | None, typer.Option(metavar="NAME", help="Instance profile.")] = None,
    idle_stop_s: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Stopped after so long without work; 0: never.")
    ] = None,
    node_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Node file that says which services run, instead of one for each model."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have machines that run: those that are there are kept, stopped ones started, missing ones made."""
    settings = settings_from(
        cloud_models=model,
        cloud_instance_type=instance_type,
        cloud_image=image,
        cloud_subnet=subnet,
        cloud_key=key,
        cloud_security_groups=security_groups,
        cloud_iam_profile=iam_profile,
        cloud_spot="true" if spot else None,
    )
    launch = _launch(settings, name, idle_stop_s, node_file)
    machines = _with_cloud(settings, lambda provider: _bring_up(settings, provider, launch, count))
    if as_json:
        print_json([describe(Rented(machine=machine)) for machine in machines])
        return
    for machine in machines:
        print(machine.machine_id)
        print(f"{machine.name}: {machine.machine_type}, {machine.state}", file=sys.stderr)


@cloud.command()
def status(as_json: AsJson = False, server: ServerUrl = None) -> None:
    """List this fleet's machines: state, age, cost, and how their nodes are."""
    settings = settings_from()
    rented = _look(settings, server)
    if as_json:
        print_json([describe(one) for one in rented])
        return
    show_rows([describe(one) for one in rented], _COLUMNS, empty="No machines. Rent one with: muster cloud up")


@cloud.command()
def ready(
    machines: Machines = None,
    timeout_s: Annotated[float, typer.Option(min=0, metavar="S", help="How long to wait.")] = 600.0,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Wait until machines have registered and serve their models; exit code 1 when they do not in time."""
    settings = settings_from()
    until_s = time.monotonic() + timeout_s
    told = ""
    while True:
        rented = _chosen(_look(settings, server), machines, _is_up)
        if not rented:
            raise SetupError("no machine of this fleet runs", next_step="rent one with: muster cloud up")
        if lost := [one for one in rented if one.machine.state not in PAID]:
            raise CloudFailed(f"{lost[0].machine.machine_id} is {lost[0].machine.state}: {lost[0].machine.reason}")
        if all(map(is_serving, rented)):
            break
        said = "; ".join(f"{one.machine.machine_id} {one.machine.state}, {one.in_words}" for one in rented)
        if said != told:
            print(said, file=sys.stderr)
            told = said
        if time.monotonic() > until_s:
            raise CloudFailed(f"not ready within {timeout_s:g} s: {said}")
        time.sleep(PROVIDER_PAUSE_S)
    _report(rented, as_json=as_json, word="ready")


@cloud.command()
def warm(
    machines: Machines = None,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Ask each model of the machines once, so that it is in memory for those who come."""
    settings = settings_from()
    client = Client.find(server)
    rented = _chosen(_look(settings, server), machines, _is_there)
    models = list(dict.fromkeys(model for one in rented for model in one.machine.models))
    if not models:
        raise SetupError("these machines have no models", next_step="say which with: muster cloud up --model NAME")
    times = {model: _ask_once(client, model, settings.cloud_wake_timeout_s) for model in models}
    if as_json:
        print_json([{"model": model, "seconds": round(seconds, 3)} for model, seconds in times.items()])
        return
    for model, seconds in times.items():
        print(f"{model} answered after {duration(seconds)}")


@cloud.command()
def stop(
    machines: Machines = None,
    drain_s: Annotated[float, typer.Option(min=0, metavar="S", help="How long running work may take to end.")] = 120.0,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Let running work end, then stop: the disk is kept and paid for, and a request may start the machine again."""
    settings = settings_from()
    rented = _chosen(_look(settings, server), machines, _is_up)
    for one in rented:
        _drain(one, server, drain_s)
    _report(_each(settings, rented, lambda provider: provider.stop), as_json=as_json, word="stopping")


@cloud.command()
def down(
    machines: Machines = None,
    yes: Yes = False,
    drain_s: Annotated[float, typer.Option(min=0, metavar="S", help="How long running work may take to end.")] = 120.0,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Terminate machines, with their disks."""
    settings = settings_from()
    rented = _chosen(_look(settings, server), machines, _is_there)
    if rented and not yes:
        names = ", ".join(f"{one.machine.name} ({one.machine.machine_id})" for one in rented)
        typer.confirm(f"Terminate {names}, with their disks?", abort=True, err=True)
    for one in rented:
        if _is_up(one):
            _drain(one, server, drain_s)
    _report(_each(settings, rented, lambda provider: provider.terminate), as_json=as_json, word="terminating")


# --- the cloud -------------------------------------------------------------------------------------------------------


def _with_cloud(settings: Settings, work: Callable[["CloudProvider"], Awaitable[T]]) -> T:
    import asyncio

    from muster.app.cloud import open_provider

    async def run() -> T:
        provider = open_provider(settings)
        try:
            return await work(provider)
        finally:
            await provider.close()

    return asyncio.run(run())


async def _bring_up(settings: Settings, provider: "CloudProvider", launch: Launch, count: int) -> list[Machine]:
    from muster.app.cloud import budget_of
    from muster.cloud.bring_up import BringUp
    from muster.control.machines import budget
    from muster.system import SystemClock

    def check(running: Sequence[Machine], machine_type: str, /, *, spot: bool) -> None:
        budget.check(budget_of(settings), provider.hourly_usd, running, machine_type, spot=spot)

    return await BringUp(provider, SystemClock(), check).run(launch, count)


def _launch(settings: Settings, name: str, idle_stop_s: float | None, node_file: Path | None) -> Launch:
    from muster.cloud.user_data import Boot, render

    if not settings.cloud_image:
        raise SetupError("no image to boot from is named", next_step="give --image AMI, or set MUSTER_CLOUD_IMAGE")
    if not settings.cloud_control_plane:
        raise SetupError(
            "a new machine would not know where its control plane is",
            next_step="set MUSTER_CLOUD_CONTROL_PLANE to a URL that it can reach: http://HOST:PORT or grpc://HOST:PORT",
        )
    if settings.token and not settings.cloud_join_token:
        raise SetupError(
            "this fleet has tokens, and a new machine would have none to join with",
            next_step="export MUSTER_CLOUD_JOIN_TOKEN=$(muster token create rented --role agent --join --uses 20)",
        )
    models = _listed(settings.cloud_models)
    boot = Boot(
        control_plane=settings.cloud_control_plane,
        rabbitmq_url=settings.cloud_rabbitmq_url,
        token=settings.cloud_join_token,
        package=settings.cloud_package,
        models=models,
        node_file=node_file.read_text() if node_file else "",
        slots=settings.model_slots,
        context_tokens=settings.model_context_tokens,
    )
    return Launch(
        token="",
        fleet=settings.cloud_fleet,
        name=name,
        machine_type=settings.cloud_instance_type,
        image=settings.cloud_image,
        models=tuple(_served_as(model) for model in models),
        owner=getpass.getuser(),
        idle_stop_s=idle_stop_s,
        spot=settings.cloud_spot,
        subnet=settings.cloud_subnet,
        key_name=settings.cloud_key,
        security_groups=_listed(settings.cloud_security_groups),
        iam_profile=settings.cloud_iam_profile,
        disk_gb=settings.cloud_disk_gb,
        user_data=render(boot),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _served_as(model: str) -> str:
    """Return the name under which a model is served: that of its file, where it is given as one."""
    return Path(model).stem if model.endswith(".gguf") else model


def _each(
    settings: Settings,
    rented: Sequence[Rented],
    act: Callable[["CloudProvider"], Callable[[str], Awaitable[Machine]]],
) -> list[Rented]:
    async def run(provider: "CloudProvider") -> list[Rented]:
        return [structs.replace(one, machine=await act(provider)(one.machine.machine_id)) for one in rented]

    return _with_cloud(settings, run)


# --- machines and their nodes ----------------------------------------------------------------------------------------


def _look(settings: Settings, server: str | None) -> list[Rented]:
    """Return the machines of this fleet with their nodes, as far as the control plane can be asked."""
    machines = _with_cloud(settings, lambda provider: _priced(provider, settings.cloud_fleet))
    try:
        nodes = nodes_by_machine(Client.find(server))
    except MusterError as error:
        print(f"nodes are not known: {error.message}", file=sys.stderr)
        return machines
    return [structs.replace(one, node=nodes.get(one.machine.machine_id), node_known=True) for one in machines]


async def _priced(provider: "CloudProvider", fleet: str) -> list[Rented]:
    machines = sorted(await provider.list(fleet), key=lambda machine: (machine.name, machine.started_at_ms))
    return [
        Rented(machine=machine, hourly_usd=provider.hourly_usd(machine.machine_type, spot=machine.spot))
        for machine in machines
    ]


def _chosen(rented: Sequence[Rented], names: Sequence[str] | None, fits: Callable[[Rented], bool]) -> list[Rented]:
    if not names:
        return [one for one in rented if fits(one)]
    chosen = []
    for name in names:
        found = [one for one in rented if name in {one.machine.machine_id, one.machine.name} and _is_there(one)]
        if not found:
            raise SetupError(f"no machine {name!r} in this fleet", next_step="muster cloud status lists what there is")
        chosen += found
    return chosen


def _is_up(one: Rented) -> bool:
    return one.machine.state in PAID


def _is_there(one: Rented) -> bool:
    return one.machine.state not in GONE


def _drain(one: Rented, server: str | None, drain_s: float) -> None:
    if one.node is None or not one.node.get("connected") or one.machine.state is not MachineState.RUNNING:
        return
    try:
        drain(Client.find(server), one.node, drain_s)
    except MusterError as error:
        print(f"{one.machine.machine_id} was not drained: {error.message}", file=sys.stderr)


def _ask_once(client: Client, model: str, wake_timeout_s: float) -> float:
    began_s = time.monotonic()
    silence_s = max(FIRST_TOKEN_TIMEOUT_S, wake_timeout_s + FIRST_TOKEN_TIMEOUT_S)
    chat = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
    try:
        with client.open("POST", "/v1/chat/completions", body=chat, silence_s=silence_s) as answer:
            answer.read()
    except Refused as error:
        if error.refused_code != "invalid_input":
            raise
        embedding = {"model": model, "input": "Hello"}  # it is there, and not for chats
        with client.open("POST", "/v1/embeddings", body=embedding, silence_s=silence_s) as answer:
            answer.read()
    return time.monotonic() - began_s


def _report(rented: Sequence[Rented], *, as_json: bool, word: str) -> None:
    if as_json:
        print_json([describe(one) for one in rented])
        return
    for one in rented:
        print(f"{one.machine.machine_id} {word}")
    if not rented:
        print("No machines.", file=sys.stderr)


def _usd(value: Any) -> str | None:
    return None if value is None else f"{value:.2f}"


_COLUMNS = (
    Column("machine", lambda row: row["machine_id"]),
    Column("name", lambda row: row["name"]),
    Column("state", lambda row: row["state"]),
    Column("type", lambda row: f"{row['machine_type']}{' spot' if row['spot'] else ''}"),
    Column("age", lambda row: None if row["age_s"] is None else duration(row["age_s"])),
    Column("USD", lambda row: _usd(row["cost_usd"]), right=True),
    Column("USD/h", lambda row: _usd(row["hourly_usd"]), right=True),
    Column("models", lambda row: row["models"]),
    Column("node", lambda row: row["node_id"]),
    Column("health", lambda row: row["health_status"]),
    Column("why", lambda row: row["reason"]),
)
