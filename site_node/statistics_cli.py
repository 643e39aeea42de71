"""`filmroom-site statistics`: how many studies consents permit for a task, as the consortium may know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from consent import Deny, key_id, sign_statistics
from site_node import keys, statistics
from site_node.app import now, open_site
from site_node.gate import Gate
from site_node.terminal import Json, confirm_at_terminal, err, out

if TYPE_CHECKING:
    from consent import ConsentStatistics

REFUSED = 3


def show_statistics(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="The task's digest.")],
    send: Annotated[bool, typer.Option("--send", help="Tell the coordinator; else nothing leaves.")] = False,
    as_json: Json = False,
) -> None:
    """Show exactly what would leave on the consents for a task: ranges, no numbers; with --send it leaves."""
    site = open_site(context.obj)
    identity = site.home.load_identity()
    gate = Gate(site.store, identity.federation, site.config.minimum_studies, site.config.max_consent_age)
    with site.store.connect() as db:
        prepared = statistics.prepare(db, gate, identity, task, now())
    if isinstance(prepared, Deny):
        err.print(f"nothing may be told: {prepared.reason}")
        raise typer.Exit(REFUSED)
    _show(prepared.statistics, as_json=as_json)
    if not send:
        return
    key = keys.read_signing_key(identity.receipt_key)
    signer = key_id(key.public_key())
    with site.store.connect() as db:
        if statistics.is_known(db, prepared, signer):
            err.print("the coordinator knows this already: nothing is sent")
            return
    confirm_at_terminal("send this?")
    from site_node import release  # noqa: PLC0415 -- it brings the line, and Flower with it

    with site.store.begin() as db:
        number = statistics.note(db, prepared, signer, now())
    release.tell_statistics(identity.fleet_address, identity, sign_statistics(prepared.statistics, key))
    with site.store.begin() as db:
        statistics.note_handed_over(db, number, now())
    err.print(f"{identity.federation} knows it now")


def _show(made: ConsentStatistics, *, as_json: bool) -> None:
    if as_json:
        print(made.model_dump_json())
        return
    title = f"{made.site} tells {made.federation}: studies of {made.dataset} ({made.modality}), as of {made.as_of}"
    table = Table("consents say", "studies", title=title)
    for outcome, studies in made.studies.model_dump().items():
        table.add_row(outcome.replace("_", " "), studies)
    out.print(table)
