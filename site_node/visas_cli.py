"""`filmroom-site requests visa`: a grant as a GA4GH visa."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 -- typer reads it at run time
from typing import Annotated

import typer

from consent import Deny, VisaParties, dataset_address
from site_node import access_requests, visas
from site_node.app import now, open_site
from site_node.errors import ConfigurationError
from site_node.terminal import By, err
from site_node.visas import Algorithm

REFUSED = 3


def make_visa(
    context: typer.Context,
    number: Annotated[int, typer.Argument(help="The request's number, as `requests list` shows it.")],
    to: Annotated[Path, typer.Option("--to", help="A new file (mode 0600) for the visa.")],
    subject: Annotated[str, typer.Option(help="Who holds it, as the issuer knows them.")],
    issuer: Annotated[str, typer.Option(help="This site's address as a visa issuer, https.")],
    by: By,
    dataset: Annotated[str | None, typer.Option(help="The dataset's address; else ISSUER/datasets/NAME.")] = None,
    source: Annotated[str | None, typer.Option(help="The committee's address; else the issuer.")] = None,
    jku: Annotated[str | None, typer.Option(help="Where the JWKS lies; else ISSUER/.well-known/jwks.json.")] = None,
    jwks: Annotated[Path | None, typer.Option("--jwks", help="Write the public keys into this file as well.")] = None,
    algorithm: Annotated[Algorithm, typer.Option(help="ES256 for a consumer that keeps to AAI 1.2.")] = (
        Algorithm.ED25519
    ),
    until: Annotated[datetime | None, typer.Option(help="An earlier end than the grant's (UTC).")] = None,
) -> None:
    """Write the grant of a request as a GA4GH visa; it cannot be called back once it is handed out."""
    site = open_site(context.obj)
    if to.exists():
        raise ConfigurationError(f"{to} is there already")
    with site.store.connect() as db:
        named = access_requests.find(db, number).form.dataset
    try:
        parties = VisaParties(issuer, subject, source or issuer, dataset or dataset_address(issuer, named))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    where = jku or f"{issuer.rstrip('/')}/.well-known/jwks.json"
    end = until.replace(tzinfo=UTC) if until else None
    made = visas.issue(site.store, site.home.identity, number, parties, where, by, now(), algorithm, end)
    if isinstance(made, Deny):
        err.print(f"refused: {made.reason}")
        raise typer.Exit(REFUSED)
    to.touch(mode=0o600, exist_ok=False)
    to.write_text(made.token)
    if jwks is not None:
        jwks.write_text(json.dumps(visas.jwks(site.home.identity), indent=2) + "\n")
    ends = datetime.fromtimestamp(made.claims["exp"], UTC)
    err.print(f"{to}: a visa until {ends:%Y-%m-%d %H:%M} UTC; publish the public keys at {where}")
