"""The page a hospital hands to a patient who withdrew: to print on A4, with nothing in it that names anybody.

`page(withdrawal, site, still) -> str` returns a whole HTML document without outside parts. It holds no name,
identifier, pseudonym, date of birth or UID; the name is filled in by hand.
"""

from __future__ import annotations

from html import escape
from string import Template
from typing import TYPE_CHECKING

from site_node.withdrawals import POLICIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from site_node.withdrawals import ModelVersions, Part, StillPermitted, Withdrawal


def page(withdrawal: Withdrawal, site: str, still: Sequence[StillPermitted] = ()) -> str:
    """Return the confirmation of `withdrawal` by the hospital called `site`, HTML; `still` may be used all the same."""
    within = " within what you withdrew" if withdrawal.limited else ""
    status = _NOTHING_DONE if withdrawal.had_no_effect else _STATUS[withdrawal.status]
    return _PAGE.substitute(
        style=STYLE,
        reference=escape(f"{site}-W{withdrawal.number:05d}"),
        site=escape(site),
        scope=escape(withdrawal.scope),
        recorded=f"{withdrawal.recorded_at:%d %B %Y, %H:%M} UTC",
        stopped=_listed(
            [
                *(f"{_round(part)}: is being stopped" for part in (*withdrawal.running, *withdrawal.waiting)),
                *(f"{_round(part)}: stopped, and thrown away" for part in withdrawal.stopped),
                *(f"{_round(part)}: the result was thrown away" for part in withdrawal.discarded),
            ],
            f"No work with your images{within} was in progress.",
        ),
        past=_listed(
            [f"{_round(part)}: {_REFUSED if part.refusal else _WORDS[part.word]}" for part in withdrawal.handed_over],
            f"No result made with your images{within} had left the hospital.",
        ),
        models=_listed(
            [f"{_from(model)}: {POLICIES[model.policy]}." for model in withdrawal.models],
            f"No model is known to contain what was learned from your images{within}.",
        ),
        elsewhere=_section(_ELSEWHERE, [f"{_from(model)}." for model in withdrawal.elsewhere]),
        still=_section(_STILL, [f"Project {one.project}: {one.studies} of your examinations." for one in still]),
        status=status if withdrawal.status == "completed" else status + _NEWER,
    )


_WORDS = {
    None: "the coordinator of the project is being told",
    "retracted": "taken back before it became part of a model",
    "aggregated": "already part of a model",
    "unknown": "never arrived at the coordinator of the project",
}

_REFUSED = "the coordinator of the project refused to hear of it; the hospital sees to it"

_STATUS = {
    "recorded": "Recorded and in force. It is not yet completed: work is being stopped, or an answer is awaited.",
    "refused": "Recorded and in force. It is not yet completed: the coordinator of the project refused to hear of it.",
    "completed": "Completed. All work it concerned has ended, and everybody who had to be told has answered.",
}

_KINDS = {"train": "training", "evaluate": "test of the model"}


_NEWER = " This page says how it stood when it was written; the hospital can print a newer one."
_NOTHING_DONE = "Recorded and in force. Nothing was there to be done: no work had been given what you withdrew."
_ELSEWHERE = "Models that contain what was learned from your images outside what you withdrew; they stay as they are"
_STILL = "What may be used all the same, because it lies outside what you withdrew or does not rest on your consent"


def _from(model: ModelVersions) -> str:
    return f"Run {model.run}, from round {model.first_round} on"


def _round(part: Part) -> str:
    return f"Run {part.run}, round {part.round} ({_KINDS.get(part.kind, part.kind)})"


def _listed(lines: Sequence[str], none: str) -> str:
    if not lines:
        return f"<p>{escape(none)}</p>"
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _section(title: str, lines: Sequence[str]) -> str:
    return f"<h2>{title}</h2>{_listed(lines, '')}" if lines else ""


STYLE = """
@page { size: A4; margin: 20mm; }
body { font: 11pt/1.45 system-ui, "Noto Sans", sans-serif; color: #1a1a1a; max-width: 170mm; margin: 12mm auto; }
header { display: flex; justify-content: space-between; align-items: baseline; border-bottom: 2px solid #1f4e79; }
h1 { font-size: 18pt; margin: 0 0 2mm; color: #1f4e79; }
h2 { font-size: 11.5pt; margin: 6mm 0 1mm; color: #1f4e79; break-after: avoid; }
p, ul { margin: 0 0 2mm; }
ul { padding-left: 6mm; }
li { break-inside: avoid; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: 42mm 1fr; gap: 1mm 4mm; margin: 5mm 0; }
dt { color: #555; }
dd { margin: 0; }
.status { border-left: 3px solid #1f4e79; padding: 1mm 4mm; background: #f2f6fa; print-color-adjust: exact; }
.hand { display: grid; grid-template-columns: 1fr 1fr; gap: 10mm; margin-top: 20mm; break-inside: avoid; }
.hand span { border-top: 1px solid #1a1a1a; padding-top: 1mm; font-size: 9pt; color: #555; }
@media print { body { margin: 0; max-width: none; } }
"""
"""The page's own style: by its digest a console lets it in."""

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Confirmation of withdrawal $reference</title>
<style>$style</style>
</head>
<body>
<header><h1>Confirmation of withdrawal</h1><span>$reference</span></header>
<dl>
<dt>Hospital</dt><dd>$site</dd>
<dt>Recorded</dt><dd>$recorded</dd>
<dt>You withdrew from</dt><dd>$scope</dd>
</dl>
<p class="status">$status</p>
<h2>What was stopped</h2>
$stopped
<h2>What had left the hospital before</h2>
<p>Images never leave the hospital. What leaves is what a model learned from the images of many patients together.</p>
$past
<h2>Models that contain it, as far as is known, and what becomes of them</h2>
$models
$elsewhere
$still
<p>Copies of a model that were handed out before cannot be called back.</p>
<div class="hand">
<span>Name of the patient (filled in by hand)</span>
<span>Date and signature for the hospital</span>
</div>
</body>
</html>
""")
