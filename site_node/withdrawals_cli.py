"""`filmroom-site withdrawals`: what was withdrawn, what it reached, and the page for the patient."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from site_node import confirmation, lineage, withdrawals
from site_node.app import now, open_site
from site_node.gate import Gate
from site_node.store import reading
from site_node.terminal import By, Json, err, out

if TYPE_CHECKING:
    from collections.abc import Iterable

    from site_node.app import Site
    from site_node.withdrawals import ModelVersions, Part, Preview, Withdrawal

withdrawals_app = typer.Typer(no_args_is_help=True, help="Withdrawals on record.")

Confirmation = Annotated[Path | None, typer.Option(help="Write the page for the patient to this new file (HTML).")]
Number = Annotated[int, typer.Argument(help="The withdrawal's number, as `withdrawals list` shows it.")]


@withdrawals_app.command("list")
def list_withdrawals(context: typer.Context, as_json: Json = False) -> None:
    """Show every withdrawal, however it came, and whether all that follows from it is done."""
    site = open_site(context.obj)
    found = withdrawals.recorded(site.store, _gate(site), now())
    if as_json:
        print(json.dumps(list(map(_document, found))))
        return
    table = Table("number", "recorded", "came by", "what was withdrawn", "updates handed over", "status")
    for one in found:
        recorded = f"{one.recorded_at:%Y-%m-%d %H:%M}"
        status = f"{one.status}; nothing was there to be done" if one.had_no_effect else one.status
        table.add_row(str(one.number), recorded, one.came_by, one.scope, str(len(one.handed_over)), status)
    out.print(table)
    _tell_refusals(site)


@withdrawals_app.command("show")
def show_withdrawal(
    context: typer.Context, number: Number, as_json: Json = False, confirmation: Confirmation = None
) -> None:
    """Show one withdrawal: what it stopped, which rounds had the studies, and what the coordinator answered."""
    site = open_site(context.obj)
    found = withdrawals.find(site.store, _gate(site), number, now())
    if as_json:
        print(json.dumps(_document(found)))
    else:
        out.print(f"withdrawal {number}, {found.recorded_at:%Y-%m-%d %H:%M} UTC, by {found.came_by}: {found.status}")
        out.print(f"withdrawn: {found.scope}")
        if found.had_no_effect:
            out.print(withdrawals.NO_EFFECT)
        _tell("running, is being stopped", found.running)
        _tell("waiting, is not handed over", found.waiting)
        _tell("was stopped", found.stopped)
        _tell("was discarded", found.discarded)
        _tell("handed over before", found.handed_over)
        _tell_models(found.models)
        for model in found.elsewhere:
            out.print(f"outside it, in the models of {model.run} from round {model.first_round} on", soft_wrap=True)
        tell_still_permitted(site, found.patient)
        _tell_refusals(site)
    if confirmation is not None:
        write_confirmation(site, number, confirmation)


@withdrawals_app.command("tell-again")
def tell_again(context: typer.Context, by: By) -> None:
    """Tell the coordinator once more of what it refused to hear, after the cause is mended; a running node does it."""
    number = lineage.tell_again(open_site(context.obj).store, by, now())
    out.print(f"{number} updates are told again" if number else "nothing was refused")


def _tell_refusals(site: Site) -> None:
    """Say what the coordinator refused to hear, and what to do."""
    with reading(site.store).connect() as db:
        refused = lineage.refusals(db)
    for one in refused:
        err.print(
            f"refused since {one.refused_at:%Y-%m-%d %H:%M} UTC: {one.updates} updates of {one.run}: {one.reason}",
            soft_wrap=True,
        )
    if refused:
        err.print(lineage.WHAT_TO_DO, soft_wrap=True)


def show_preview(preview: Preview) -> None:
    """Print what a withdrawal reaches."""
    out.print(f"withdrawn: {preview.scope}")
    out.print(f"studies within it: {preview.studies}; the patient's other studies: {preview.remaining}")
    _tell("running, is stopped", preview.running)
    _tell("waiting, is discarded", preview.waiting)
    _tell("handed over", preview.handed_over)
    _tell_models(preview.models)


def tell_still_permitted(site: Site, patient: str) -> None:
    """Print what may be used of `patient` (pseudonym) all the same."""
    for one in withdrawals.still_permitted(site.store, _gate(site), patient, now()):
        used = f"{one.studies} studies for project {one.project}, task {one.task_digest[:12]}"
        out.print(f"still permitted by the records of now: {used}", soft_wrap=True)


def write_confirmation(site: Site, number: int, target: Path) -> None:
    """Write the page of a withdrawal to a new file, mode 0600.

    Raises: ConfigurationError if there is no such withdrawal; OSError if the file is there or cannot be written.
    """
    gate, at = _gate(site), now()
    found = withdrawals.find(site.store, gate, number, at)
    still = withdrawals.still_permitted(site.store, gate, found.patient, at)
    text = confirmation.page(found, site.config.name, still)
    with os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    err.print(f"the page for the patient is in {target}; it names nobody: fill in the name by hand", soft_wrap=True)
    if found.status != "completed":
        again = f"filmroom-site withdrawals show {number} --confirmation FILE"
        err.print(f"it says that it is not completed yet; write it anew later: {again}", soft_wrap=True)


def _gate(site: Site) -> Gate:
    # A site that joined no federation has handed nothing over, so nothing turns on whose name this is.
    federation = site.home.load_identity().federation if (site.home.identity / "membership.json").exists() else ""
    return Gate(site.store, federation, site.config.minimum_studies, site.config.max_consent_age)


def _tell(what: str, parts: Iterable[Part]) -> None:
    for part in parts:
        word = f"; the coordinator says: {part.word}" if part.word else ""
        if part.refusal:
            word = f"; the coordinator refuses to hear of it: {part.refusal}"
        out.print(f"{what}: {part.run} round {part.round} ({part.kind}), {part.studies} studies{word}", soft_wrap=True)


def _tell_models(versions: Iterable[ModelVersions]) -> None:
    for model in versions:
        meant = withdrawals.POLICIES[model.policy]
        out.print(f"in the models of {model.run} from round {model.first_round} on: {meant}", soft_wrap=True)


def _document(withdrawal: Withdrawal) -> dict[str, Any]:
    models = [asdict(model) for model in withdrawal.models]
    return asdict(withdrawal) | {"recorded_at": withdrawal.recorded_at.isoformat(), "models": models}
