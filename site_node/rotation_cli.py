"""`filmroom-site rotate-key`: another receipt key within the membership."""

from __future__ import annotations

import typer  # noqa: TC002 -- Typer reads the annotation

from models.memory import loading
from site_node.app import open_site
from site_node.terminal import out


def rotate_key(context: typer.Context) -> None:
    """Replace the key that receipts are signed with; stop the node first. Cut off or unanswered, run it again."""
    with loading():
        from site_node.rotation import rotate  # noqa: PLC0415 -- it brings the line, and Flower with it
        from site_node.service import alone  # noqa: PLC0415 -- as above

    site = open_site(context.obj)
    with alone(site.home):
        name = rotate(site.home)
    out.print(f"receipts are signed with key {name[:16]} from now on; give the witnesses what `log-key` prints")
