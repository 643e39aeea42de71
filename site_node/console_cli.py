"""`filmroom-site console` and `accounts`: pages for people in the hospital, and who may see them."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.table import Table

from site_node import accounts
from site_node.accounts import Role  # noqa: TC001 -- typer reads it when it runs
from site_node.app import now, open_site
from site_node.terminal import Json, out

console_app = typer.Typer(no_args_is_help=True, help="The hospital's console, in a browser on this machine.")
accounts_app = typer.Typer(no_args_is_help=True, help="Who may use the console.")


@console_app.command("serve")
def serve_console(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535, help="On 127.0.0.1.")] = 8460,
) -> None:
    """Serve the console on this machine's loopback address until interrupted."""
    from site_node.console import frame, pages, server  # noqa: PLC0415 -- FastAPI is slow to import, and nothing else needs it

    site = open_site(context.obj)
    federation = site.home.load_identity().federation
    made = pages.console_pages(frame.Console(site, federation, now))
    server.serve(made, port, lambda line: print(line, flush=True))


@accounts_app.command("add")
def add_account(context: typer.Context, name: str, role: Role) -> None:
    """Make an account, or give one a new role and password; the password is asked for."""
    asks = sys.stdin.isatty()
    password = typer.prompt("password", hide_input=asks, confirmation_prompt=asks)
    accounts.add(open_site(context.obj).store, name, role, password, now())
    out.print(f"{name} may sign in as {role}")


@accounts_app.command("disable")
def disable_account(context: typer.Context, name: str) -> None:
    """Let nobody sign in under a name any more; who is signed in is out at once."""
    accounts.disable(open_site(context.obj).store, name, now())
    out.print(f"{name} may no longer sign in")


@accounts_app.command("list")
def list_accounts(context: typer.Context, as_json: Json = False) -> None:
    """Show the accounts."""
    with open_site(context.obj).store.connect() as db:
        rows = [{"name": one.name, "role": one.role.value, "disabled": one.disabled} for one in accounts.known(db)]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("name", "role", "disabled", title="accounts")
    for row in rows:
        table.add_row(*map(str, row.values()))
    out.print(table)
