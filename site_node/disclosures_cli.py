"""`filmroom-site disclosures`: what left that was computed from one patient's images, for that patient to read."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, date, datetime
from html import escape
from pathlib import Path  # noqa: TC003 -- typer reads it at run time
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from site_node import disclosures, ledger
from site_node.app import now, open_site
from site_node.errors import ConfigurationError
from site_node.store import reading
from site_node.terminal import By, Json, ask_patient, err, out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from site_node.config import SiteHome
    from site_node.disclosures import Disclosure

NOTHING: Final = "Nothing was disclosed."


def account_for_disclosures(
    context: typer.Context,
    by: By,
    since: Annotated[datetime | None, typer.Option(help="From when on (UTC); else the last six years.")] = None,
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option("--html", help="A new file to print for the patient.")] = None,
) -> None:
    """Account for every release in which a patient's images were used; the PatientID is asked for."""
    site = open_site(context.obj)
    if html is not None and html.exists():
        raise ConfigurationError(f"{html} is there already")
    patient = site.pseudonymiser.patient(ask_patient())
    at = now()
    begin = since.replace(tzinfo=UTC) if since else disclosures.since_when(at)
    with reading(site.store).connect() as db:
        found = list(disclosures.disclosures(db, patient, begin, _addresses(site.home)))
    with site.store.begin() as db:
        ledger.write(db, at, "site:disclosures:accounted", since=begin.isoformat(), by=by)
    if html is not None:
        html.touch(mode=0o600, exist_ok=False)
        html.write_text(as_html(found, site.config.name, begin, at), encoding="utf-8")
        err.print(f"{html}: print it and write the patient's name on it by hand")
    if as_json:
        print(json.dumps([asdict(one) for one in found], default=datetime.isoformat))
    elif html is None:
        _show(found, begin)


def _addresses(home: SiteHome) -> dict[str, str]:
    """Return the address of the federation this site is a member of; a site that never joined disclosed nothing."""
    try:
        identity = home.load_identity()
    except ConfigurationError:
        return {}
    return {identity.federation: identity.fleet_address}


def _show(found: Sequence[Disclosure], since: datetime) -> None:
    if not found:
        out.print(f"{NOTHING} (since {since:%Y-%m-%d})")
        return
    table = Table("when", "to", "project", "round", "purpose", "basis", "receipt", title=f"since {since:%Y-%m-%d}")
    for one in found:
        to, basis = f"{one.recipient}\n{one.address}", "\n".join((one.basis, *one.consents))
        cells = (to, one.project, f"{one.kind} {one.round}", "\n".join(one.purposes), basis, one.receipt[:12])
        table.add_row(f"{one.at:%Y-%m-%d %H:%M}", *cells)
    out.print(table)
    for what in dict.fromkeys(one.what for one in found):
        out.print(f"what left: {what}")
    withdrawn = [one.withdrawn_at for one in found if one.withdrawn_at]
    if withdrawn:
        out.print(f"{len(withdrawn)} of them before a withdrawal of {min(withdrawn):%Y-%m-%d}")


# ------------------------------------------------------------------ the page

_COLUMNS: Final = (
    "Date (UTC)",
    "Recipient",
    "What was disclosed",
    "Purpose",
    "On which basis",
    "Since then",
    "Receipt",
)
_STYLE: Final = (
    "body{font:11pt/1.35 sans-serif;margin:2em;color:#000;background:#fff}"
    "table{border-collapse:collapse;width:100%}caption{text-align:left;font-weight:bold;padding:.5em 0}"
    "th,td{border:1px solid #555;padding:.3em .4em;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    "thead{display:table-header-group}tr{break-inside:avoid}"
    "@media print{@page{size:A4 landscape;margin:12mm}body{margin:0;font-size:9pt}}"
)


def as_html(found: Sequence[Disclosure], site: str, since: datetime, at: datetime) -> str:
    """Return the accounting as one page that needs nothing else; it names no patient."""
    body = _table(found) if found else f"<p><strong>{NOTHING}</strong></p>"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Accounting of disclosures</title>'
        f"<style>{_STYLE}</style></head><body><h1>Accounting of disclosures</h1>"
        "<p>Patient: ______________________________</p>"
        f"<p>Hospital: {escape(site)}. Period: {_day(since)} to {_day(at)}. Made on {_day(at)}.</p>"
        "<p>What is listed was computed from this patient's images together with those of others, and left the "
        f"hospital. Images themselves did not leave. (45 CFR 164.528)</p>{body}</body></html>\n"
    )


def _table(found: Sequence[Disclosure]) -> str:
    head = "".join(f'<th scope="col">{column}</th>' for column in _COLUMNS)
    rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in _cells(one))}</tr>" for one in found)
    caption = f"{len(found)} disclosure{'' if len(found) == 1 else 's'}"
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(one: Disclosure) -> tuple[str, ...]:
    since = f"consent withdrawn on {_day(one.withdrawn_at)}" if one.withdrawn_at else "nothing was withdrawn"
    project = f"project {one.project}, {one.title} ({one.kind}, run {one.run}, round {one.round})"
    return (
        f"{one.at.astimezone(UTC):%Y-%m-%d %H:%M}",
        _lines(one.recipient, one.address or "address not known"),
        _lines(one.what),
        _lines(project, *one.purposes),
        _lines(f"dataset {one.dataset}: {one.basis}", *one.consents),
        _lines(since),
        _lines(one.receipt),
    )


def _lines(*lines: str) -> str:
    return "<br>".join(map(escape, lines))


def _day(moment: date) -> str:
    return f"{moment:%Y-%m-%d}"
