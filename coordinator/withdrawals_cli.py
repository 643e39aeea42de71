"""Commands on what was withdrawn: how each model stands, and the notices that members signed."""

from __future__ import annotations

import typer

from coordinator import withdrawals
from coordinator.app import open_coordinator
from coordinator.terminal import Json, show

withdrawals_app = typer.Typer(no_args_is_help=True, help="Contributions that members have withdrawn.")


def list_models(context: typer.Context, as_json: Json = False) -> None:
    """List the models of all runs: whether one contains a withdrawn contribution, and whether it is handed out."""
    rows = [
        {**stands._asdict(), "flagged": stands.is_flagged, "handed_out": _handed_out(stands)}
        for stands in withdrawals.all_standing(open_coordinator(context.obj).store)
    ]
    for row in rows:
        row["contains_withdrawn"] = _contains(row)
    columns = ("run", "state", "policy", "contains_withdrawn", "handed_out", "successor")
    show(rows, columns, "models", as_json=as_json)


@withdrawals_app.command("list")
def list_notices(context: typer.Context, as_json: Json = False) -> None:
    """List the notices of members; with --json, each with its signed envelope and the answer for each receipt."""
    rows = withdrawals.received(open_coordinator(context.obj).store)
    show(rows, ("received_at", "site", "run", "answers"), "withdrawals", as_json=as_json)


def _handed_out(stands: withdrawals.Standing) -> str:
    if stands.refusal:
        return "refused"
    return "yes" if stands.state == "finished" else ""


def _contains(row: dict[str, object]) -> str:
    if row["withdrawn_from"] is not None:
        return f"from round {row['withdrawn_from']}"
    return "in its measurement" if row["measured_with_withdrawn"] else ""
