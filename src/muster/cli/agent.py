from typing import Annotated

import typer

from muster.cli.options import Attach, DataDir, Gpus, Model, NodeIdOption, Profile, settings_from


def agent(
    control_plane: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the control plane is: http://HOST:PORT.")
    ] = None,
    rabbitmq_url: Annotated[
        str | None,
        typer.Option(
            "--rabbitmq-url",
            metavar="URL",
            help="Speak through this RabbitMQ, amqp://USER:PASSWORD@HOST; rather set RABBITMQ_URL, which hides the "
            "password. Jobs still come from the control plane itself.",
        ),
    ] = None,
    link: Annotated[
        str | None, typer.Option(metavar="LINK", help="http, grpc or amqp (rabbitmq); otherwise by the URLs given.")
    ] = None,
    node_id: NodeIdOption = None,
    node_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="TOML file that says which services this machine runs.")
    ] = None,
    attach: Attach = None,
    model: Model = None,
    gpus: Gpus = None,
    data_dir: DataDir = None,
    profile: Profile = None,
) -> None:
    """Join this machine to a fleet. Its token, or a join token, is read from MUSTER_TOKEN."""
    settings = settings_from(
        control_plane=control_plane,
        rabbitmq_url=rabbitmq_url,
        link=link,
        node_id=node_id,
        node_file=node_file,
        attach=attach,
        model=model,
        num_gpus=gpus,
        data_dir=data_dir,
        profile=profile,
    )
    from muster.app.run import run_agent

    raise typer.Exit(run_agent(settings))
