"""`filmroom-site audit`: what an auditor who sits in the hospital runs."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from consent import log_origin, log_verifier
from site_node.app import open_site
from site_node.audit import Audited, Sample, audit
from site_node.keys import read_signing_key
from site_node.terminal import Json, err, out


def print_log_key(context: typer.Context) -> None:
    """Print the key by which a witness knows this site's consent log; give it to the witness's operator."""
    identity = open_site(context.obj).home.load_identity()
    key = read_signing_key(identity.receipt_key).public_key()
    print(log_verifier(log_origin(identity.federation, identity.site, key), key).text)


def audit_site(
    context: typer.Context,
    run: Annotated[str | None, typer.Argument(help="The run whose rounds are audited; else all.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Open this many studies of each round; else all.")] = None,
    nonce: Annotated[str | None, typer.Option(help="The auditor's own word; it chooses the sample.")] = None,
    as_json: Json = False,
) -> None:
    """Replay the consent log and every round from what is on record, and compare it with what was signed."""
    site = open_site(context.obj)
    identity = site.home.load_identity()
    word = nonce or secrets.token_hex(16)
    if sample is not None and nonce is None:
        err.print(f"the sample was chosen by {word}; an auditor gives a word with --nonce")
    found = audit(
        site.store,
        Audited(site.home.root, identity.federation, identity.site, identity.authority.read_bytes()),
        run,
        Sample(sample, word) if sample is not None else None,
    )
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        table = Table("checked", "times", "faults", title="audit")
        for one in found:
            table.add_row(one.what, str(one.checked), str(len(one.faults)))
        out.print(table)
    for one in found:
        for fault in one.faults:
            err.print(fault, soft_wrap=True)
    if any(one.faults for one in found):
        raise typer.Exit(1)
