from typing import Annotated
from urllib.parse import quote

import typer

from muster.cli.client import Client
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Column, console, print_json, show_rows

customers = typer.Typer(invoke_without_command=True, help="Look at customers and set their share and limits.")

CustomerArgument = Annotated[str, typer.Argument(metavar="CUSTOMER", help="As jobs name it: customer_id.")]


@customers.callback()
def list_customers(context: typer.Context, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """List the customers for whom something is set."""
    if context.invoked_subcommand is not None:
        return
    found = Client.find(server).get("/api/customers")["customers"]
    print_json(found) if as_json else show_rows(found, _COLUMNS, empty="Nothing is set for any customer.")


@customers.command("set")
def set_customer(
    customer: CustomerArgument,
    weight: Annotated[int, typer.Option(min=1, max=100, help="Its share among those who wait.")] = 1,
    running_max: Annotated[int | None, typer.Option(min=0, help="How many of its jobs may run at a time.")] = None,
    waiting_max: Annotated[int | None, typer.Option(min=0, help="How many may wait; more are refused.")] = None,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Set a customer's share and limits; what is left out is not limited."""
    terms = {"weight": weight, "running_max": running_max, "waiting_max": waiting_max}
    found = Client.find(server).request("PUT", f"/api/customers/{quote(customer, safe='')}", body=terms)[0]["customer"]
    print_json(found) if as_json else show_rows([found], _COLUMNS, empty="")


@customers.command()
def forget(customer: CustomerArgument, server: ServerUrl = None) -> None:
    """Take back what is set for a customer."""
    Client.find(server).request("DELETE", f"/api/customers/{quote(customer, safe='')}")
    console().print(f"nothing is set for {customer} any more", markup=False)


_COLUMNS = (
    Column("customer", lambda row: row["customer_id"]),
    Column("weight", lambda row: row["weight"], right=True),
    Column("running", lambda row: row["running"], right=True),
    Column("at most", lambda row: row["running_max"], right=True),
    Column("waiting", lambda row: row["waiting"], right=True),
    Column("at most", lambda row: row["waiting_max"], right=True),
)
