"""`filmroom-site review`, `keys` and `reidentify`: what a person decides about images, keys and identities.

Only `reidentify show` and `reidentify map` give a patient's values, and `review show --picture` draws what the original
shows; everything else is pseudonyms, digests and reasons.
"""

from __future__ import annotations

import csv
import json
import os
import secrets
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from consent import Deny
from site_node import project_keys, reidentification, review
from site_node.app import now, open_intake, open_site
from site_node.errors import ConfigurationError
from site_node.terminal import By, Json, err, out

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from site_node.app import Site

review_app = typer.Typer(no_args_is_help=True, help="Instances that wait for a person, and audits of accepted ones.")
keys_app = typer.Typer(no_args_is_help=True, help="Pseudonym keys of projects.")
reidentify_app = typer.Typer(no_args_is_help=True, help="Who stands behind a pseudonym; by two persons together.")

REFUSED = 3
_SHOWN_DIGITS = 12
_GOAL_LABELS = {goal: f"{goal:.1%}" for goal in review.GOALS}

Id = Annotated[str, typer.Argument(help="The instance's id, or how it begins (8 digits or more).")]
Ids = Annotated[str, typer.Argument(help="The instance's id, or a held series' (pseudonymous) SeriesInstanceUID.")]
Original = Annotated[
    Path | None, typer.Option(help="The original file, for an instance that was accepted before: it was not kept.")
]
Word = Annotated[str, typer.Option(help="Why, in lower-case words joined by hyphens; goes on the record.")]
Reference = Annotated[str | None, typer.Option(help="A key on a token (pkcs11:…); without it a new file is made.")]
Why = Annotated[str, typer.Option("--reason", help="Why; others read it, so name no patient.")]


@review_app.command("list")
def list_held(context: typer.Context, as_json: Json = False) -> None:
    """Show what waits for a person, longest first."""
    site = _site(context)
    with site.store.connect() as db:
        made = Counter(decision.source_sha256 for decision in review.decisions(db))
        rows = [_case(case) | {"decisions": made[case.source_sha256]} for case in review.held(db)]
    _print(
        "waiting for a person",
        ("id", "reason", "Modality", "boxes", "SeriesInstanceUID", "since", "decisions"),
        rows,
        as_json,
    )


@review_app.command("show")
def show_case(
    context: typer.Context,
    name: Id,
    picture: Annotated[Path | None, typer.Option(help="Draw a frame with the proposed boxes into a new PNG.")] = None,
    frame: Annotated[int, typer.Option(help="Which frame, from 1.", min=1)] = 1,
    as_json: Json = False,
) -> None:
    """Show why an instance is held, what is proposed, and what was decided; draw it on request."""
    site = _site(context)
    with site.store.connect() as db:
        case = review.find(db, name)
        decided = [asdict(decision) for decision in review.decisions(db, case.source_sha256)]
    if picture is not None:
        _write_new(picture, _draw(site, case, frame))
        err.print(f"{picture} shows what the original shows: it stays in the hospital, and is deleted after use")
    if as_json:
        print(json.dumps(asdict(case) | {"decisions": decided}))
        return
    out.print(f"{case.source_sha256}\n{case.outcome}: {case.reason}, since {case.since}, pipeline {case.pipeline}")
    for number, box in enumerate(case.boxes, 1):
        out.print(f"box {number}: {','.join(map(str, box))}")
    for note in case.notes:
        out.print(f"note: {note}")
    _print("decisions", ("number", "verdict", "held_for", "reason", "by", "at", "outcome"), decided)


@review_app.command("accept")
def accept_case(context: typer.Context, name: Ids, by: By, original: Original = None, as_json: Json = False) -> None:
    """Blank the proposed boxes and let the instance in."""
    site = _site(context)
    with review.deciding(site.store, site.home.root, now()):
        _provide(site, name, original)
        retake = _retake(site)
        _report_all((review.accept(site.store, retake, one, by, now()) for one in _members(site, name)), as_json)


@review_app.command("redraw")
def redraw_case(
    context: typer.Context,
    name: Ids,
    by: By,
    box: Annotated[list[str] | None, typer.Option(help="top,left,bottom,right in pixels; may be repeated.")] = None,
    nothing: Annotated[bool, typer.Option("--nothing", help="There is nothing to blank.")] = False,
    original: Original = None,
    as_json: Json = False,
) -> None:
    """Blank these boxes in place of the proposed, and let the instance in."""
    if bool(box) == nothing:
        raise typer.BadParameter("give --box, once for each, or --nothing")
    boxes = tuple(_box(text) for text in box or ())
    site = _site(context)
    with review.deciding(site.store, site.home.root, now()):
        _provide(site, name, original)
        retake = _retake(site)
        _report_all((review.redraw(site.store, retake, one, boxes, by, now()) for one in _members(site, name)), as_json)


@review_app.command("reject")
def reject_case(context: typer.Context, name: Ids, reason: Word, by: By, as_json: Json = False) -> None:
    """Keep an instance out."""
    site = _site(context)
    with review.deciding(site.store, site.home.root, now()):
        _report_all((review.reject(site.store, one, reason, by, now()) for one in _members(site, name)), as_json)


@review_app.command("reopen")
def reopen_case(context: typer.Context, name: Id, reason: Word, by: By, as_json: Json = False) -> None:
    """Hold a decided instance again; an accepted one leaves the catalogue, and running work with it stops."""
    site = _site(context)
    with review.deciding(site.store, site.home.root, now()):
        _report_all([review.reopen(site.store, site.home.root, name, reason, by, now())], as_json)


@review_app.command("sample")
def draw_sample(
    context: typer.Context,
    count: Annotated[int | None, typer.Option(help="How many.")] = None,
    fraction: Annotated[float | None, typer.Option(help="Which share of those never drawn.")] = None,
    modality: Annotated[str | None, typer.Option(help="Of one DICOM modality.")] = None,
    seed: Annotated[str | None, typer.Option(help="Draws the same again; on the record.")] = None,
    as_json: Json = False,
) -> None:
    """Draw accepted instances at random for an audit."""
    site = _site(context)
    seed = seed or secrets.token_hex(8)
    drawn = review.sample(site.store, now(), seed, count=count, fraction=fraction, modality=modality)
    if as_json:
        print(json.dumps({"seed": seed, "drawn": drawn}))
        return
    out.print(f"{len(drawn)} drawn with seed {seed}; `filmroom-site review drawn` lists what is to be looked at")


@review_app.command("drawn")
def list_drawn(context: typer.Context, as_json: Json = False) -> None:
    """Show the drawn instances that nobody has looked at yet."""
    with _site(context).store.connect() as db:
        rows = review.awaited(db)
    _print("to be audited", ("SOPInstanceUID", "Modality", "path"), rows, as_json)


@review_app.command("audit")
def judge_audit(
    context: typer.Context,
    uid: Annotated[str, typer.Argument(help="The drawn SOPInstanceUID.")],
    by: By,
    verdict: Annotated[str, typer.Option(help="clean or leak.")],
    place: Annotated[str | None, typer.Option(help="Where it leaks: an attribute or a spot, never the value.")] = None,
    series: Annotated[bool, typer.Option("--series", help="With a leak: the whole series leaves.")] = False,
    as_json: Json = False,
) -> None:
    """Record what an audit found; a leak takes the instance out at once, and running work with it stops."""
    site = _site(context)
    root = site.home.root
    with review.deciding(site.store, root, now()):
        found = review.judge(site.store, root, uid, verdict, by, now(), place, whole_series=series)
    if isinstance(found, Deny):
        _refused(found)
    elif as_json:
        print(json.dumps({"SOPInstanceUID": uid, "verdict": verdict, "place": place, "held": found}))
    else:
        out.print(f"recorded as {verdict}; taken out and waiting for a person: {len(found)}")


@review_app.command("statistics")
def show_statistics(context: typer.Context, as_json: Json = False) -> None:
    """Show how many of the audited leak, with 95 % bounds, and how many clean audits a goal still needs."""
    with _site(context).store.connect() as db:
        rates = review.statistics(db)
    rows = [
        {
            "of": of,
            "which": which,
            **asdict(rate),
            "needed": {
                label: review.clean_audits_needed(rate.leaks, rate.audited, goal)
                for goal, label in _GOAL_LABELS.items()
            },
        }
        for (of, which), rate in rates.items()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    flat = [
        row
        | {"share": f"{row['lower']:.3%} to {row['upper']:.3%}"}
        | {f"below {goal}": number for goal, number in dict(row["needed"]).items()}
        for row in rows
    ]
    columns = ("of", "which", "audited", "leaks", "share", *(f"below {label}" for label in _GOAL_LABELS.values()))
    _print("leaks found by audits; 95 % bounds; clean audits still needed", columns, flat)


@keys_app.command("list")
def list_keys(context: typer.Context, project: str | None = None, as_json: Json = False) -> None:
    """Show every generation of every project's key; never a key."""
    with _site(context).store.connect() as db:
        rows = [asdict(key) | {"state": key.state} for key in project_keys.generations(db, project)]
    _print("project keys", ("project", "generation", "key_id", "state", "made_at", "reference"), rows, as_json)


@keys_app.command("create")
def create_key(
    context: typer.Context, project: str, by: By, reference: Reference = None, as_json: Json = False
) -> None:
    """Give a project its own pseudonym key."""
    site = _site(context)
    key_id = project_keys.create(site.store, site.home.root, project, by, now(), reference)
    _say_key(f"project {project} has key {key_id}", key_id, as_json)


@keys_app.command("rotate")
def rotate_key(
    context: typer.Context, project: str, by: By, reference: Reference = None, as_json: Json = False
) -> None:
    """Begin a new generation of a project's key; new pseudonyms have nothing in common with the old."""
    site = _site(context)
    key_id = project_keys.rotate(site.store, site.home.root, project, by, now(), reference)
    _say_key(f"project {project} goes on with key {key_id}; the one before is for reading alone", key_id, as_json)


@keys_app.command("destroy")
def destroy_key(
    context: typer.Context,
    project: str,
    by: By,
    generation: Annotated[int | None, typer.Option(help="One generation; without it, all.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Destroy a project's keys for good: nobody can find a patient from its pseudonyms again."""
    site = _site(context)
    if not yes:
        which = "every key" if generation is None else f"generation {generation}"
        typer.confirm(f"Destroy {which} of project {project}, for good?", abort=True, err=True)
    gone = project_keys.destroy(site.store, site.home.root, project, by, now(), generation)
    if as_json:
        print(json.dumps({"destroyed": gone}))
        return
    out.print(f"destroyed: {', '.join(gone)}; backups that hold these keys are to be destroyed too")


@reidentify_app.command("list")
def list_requests(context: typer.Context, as_json: Json = False) -> None:
    """Show every request, and where it stands."""
    moment = now()
    with _site(context).store.connect() as db:
        rows = [asdict(asked) | {"state": asked.state(moment)} for asked in reidentification.requests(db)]
    columns = ("number", "pseudonym", "reason", "requested_by", "approved_by", "state", "expires_at")
    _print("requests", columns, rows, as_json)


@reidentify_app.command("request")
def request_identity(context: typer.Context, pseudonym: str, reason: Why, by: By, as_json: Json = False) -> None:
    """Ask who stands behind a pseudonym, for an incidental finding; another person approves."""
    site = _site(context)
    asked = reidentification.request(site.store, _vaults(site), pseudonym, reason, by, now())
    _say_number(asked, as_json)


@reidentify_app.command("request-map")
def request_map(
    context: typer.Context,
    reason: Why,
    by: By,
    project: Annotated[str | None, typer.Option(help="Of a project's pseudonyms; without it, of the site's.")] = None,
    as_json: Json = False,
) -> None:
    """Ask for the table of all pseudonyms and originals; another person approves."""
    site = _site(context)
    key_id = site.pseudonymiser.key_id
    if project is not None:
        with site.store.connect() as db:
            key_id = project_keys.pseudonymiser(db, site.home.root, project).key_id
    _say_number(reidentification.request_map(site.store, key_id, reason, by, now()), as_json)


@reidentify_app.command("approve")
def approve_request(context: typer.Context, number: int, by: By, as_json: Json = False) -> None:
    """Approve a request that another person made."""
    _say_state(reidentification.approve(_site(context).store, number, by, now()), as_json)


@reidentify_app.command("deny")
def deny_request(context: typer.Context, number: int, by: By, as_json: Json = False) -> None:
    """Deny a request, or take an approval back before it is used."""
    _say_state(reidentification.deny(_site(context).store, number, by, now()), as_json)


@reidentify_app.command("show")
def show_identity(context: typer.Context, number: int, by: By, as_json: Json = False) -> None:
    """Print who stands behind the pseudonym of an approved request: once, to who asked."""
    site = _site(context)
    known = reidentification.show(site.store, _vaults(site), number, by, now())
    if isinstance(known, Deny):
        _refused(known)
    elif as_json:
        print(json.dumps(known._asdict()))
    else:
        print(f"{known.kind} {known.pseudonym} is {known.original}")


@reidentify_app.command("map")
def write_map(
    context: typer.Context,
    number: int,
    target: Annotated[Path, typer.Argument(help="A new CSV of id_old and id_new, mode 0600.")],
    by: By,
    kind: Annotated[str, typer.Option(help="patient, or uid.")] = "patient",
) -> None:
    """Write the table of an approved request: once, to who asked; it stays in the hospital."""
    if kind not in {"patient", "uid"}:
        raise typer.BadParameter("kind is patient or uid")
    site = _site(context)
    if target.exists():
        raise ConfigurationError(f"{target} is there already")
    known = reidentification.show_map(site.store, _vaults(site), number, by, now())
    if isinstance(known, Deny):
        _refused(known)
        return
    rows = [
        (one.original, one.pseudonym) for one in known if (one.kind == reidentification.PATIENT) == (kind == "patient")
    ]
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("id_old", "id_new"), *rows])
    out.print(f"{len(rows)} rows in {target}: it tells who the patients are, and stays in the hospital")


def _site(context: typer.Context) -> Site:
    return open_site(context.obj)


def _vaults(site: Site) -> reidentification.Vaults:
    key = reidentification.open_identity_key(site.store, site.config.identity_key, site.home.root)
    return reidentification.Vaults(site.home.root, key, site.pseudonymiser)


def _retake(site: Site) -> review.Retake:
    """Return what runs an original through intake again; it is slow to import, and most commands need it not."""
    from site_node.deidentify.instance import Decision  # noqa: PLC0415
    from site_node.deidentify.picture import Box  # noqa: PLC0415
    from site_node.intake.judging import ACCEPTED  # noqa: PLC0415
    from site_node.intake.retake import retake  # noqa: PLC0415

    intake = open_intake(site)

    def again(source_sha256: str, boxes: review.Boxes, cleared: frozenset[str], at: datetime) -> str | None:
        decision = Decision(boxes=tuple(Box(*box) for box in boxes), accept=cleared)
        verdict = retake(intake, source_sha256, decision, at)
        return None if verdict.outcome == ACCEPTED else verdict.reason

    return again


def _draw(site: Site, case: review.Case, frame: int) -> bytes:
    from site_node.deidentify.instance import pixel_element, pixels_of  # noqa: PLC0415 -- it brings pydicom, which is slow to import
    from site_node.deidentify.stream import read  # noqa: PLC0415 -- as above
    from site_node.deidentify.transcoding import quiet  # noqa: PLC0415 -- as above
    from site_node.drawing import png  # noqa: PLC0415 -- as above
    from site_node.intake.judging import source  # noqa: PLC0415 -- as above

    with source(site.home.root / case.kept_as) as content, quiet():
        original = read(content)
        if pixel_element(original) is None:
            raise ConfigurationError("PixelData: absent, so there is nothing to draw")
        seen, _ = pixels_of(original)
        if frame > seen.frames:
            raise ConfigurationError(f"the instance has {seen.frames} frames")
        return png(seen.view(frame - 1), case.boxes)


def _provide(site: Site, name: str, original: Path | None) -> None:
    if original is not None:
        review.provide_original(site.store, site.home.root, name, original.read_bytes())


def _box(text: str) -> tuple[int, int, int, int]:
    try:
        top, left, bottom, right = map(int, text.split(","))
    except ValueError as error:
        raise typer.BadParameter("a box is top,left,bottom,right") from error
    return top, left, bottom, right


def _case(case: review.Case) -> dict[str, Any]:
    return asdict(case) | {"id": case.source_sha256[:_SHOWN_DIGITS]}


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads; an existing one is not touched."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)


def _members(site: Site, name: str) -> list[str]:
    with site.store.connect() as db:
        return review.members(db, name)


def _report_all(decided: Iterable[review.Decision | Deny], as_json: Json) -> None:
    """Say what came of each decision; a refusal among them is the end, and those before it stand."""
    made: list[review.Decision] = []
    refusal = None
    for decision in decided:
        if isinstance(decision, Deny):
            refusal = decision
            break
        made.append(decision)
        if not as_json:
            out.print(_line(decision))
    if as_json:
        print(json.dumps([asdict(decision) for decision in made]))
    if refusal is not None:
        _refused(refusal)


def _line(decision: review.Decision) -> str:
    if decision.outcome == review.SECOND_AWAITED:
        return f"decision {decision.number} is on the record; another person must agree before it is let in"
    why = f" again: {decision.held_again_for}" if decision.held_again_for else ""
    return f"decision {decision.number} is on the record; the instance is {decision.outcome}{why}"


def _say_key(line: str, key_id: str, as_json: Json) -> None:
    if as_json:
        print(json.dumps({"key_id": key_id}))
    else:
        out.print(line)


def _say_number(asked: int | Deny, as_json: Json) -> None:
    if isinstance(asked, Deny):
        _refused(asked)
    elif as_json:
        print(json.dumps({"number": asked}))
    else:
        out.print(f"request {asked} is on the record; another person approves it")


def _say_state(asked: reidentification.Request | Deny, as_json: Json) -> None:
    if isinstance(asked, Deny):
        _refused(asked)
        return
    state = asked.state(now())
    if as_json:
        print(json.dumps(asdict(asked) | {"state": state}))
    else:
        out.print(f"request {asked.number} is {state}")


def _refused(refusal: Deny) -> None:
    err.print(f"refused: {refusal.reason}")
    raise typer.Exit(REFUSED)


def _print(title: str, columns: Sequence[str], rows: Iterable[dict[str, Any]], as_json: Json = False) -> None:
    if as_json:
        print(json.dumps(list(rows)))
        return
    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold")  # an id that is cut off names nothing
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    out.print(table)


def _cell(value: object) -> str:
    if isinstance(value, tuple):  # boxes
        return str(len(value))
    return "" if value is None else str(value)
