"""`make demo`: a whole consortium on this machine, from empty folders to a report.

Exit codes: 0 every invariant held; 1 one was broken, or a command failed; 130 interrupted.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from demo.baselines import load_baselines
from demo.checks import check_all, search_arrivals
from demo.consortium import CommandFailed, Consortium
from demo.findings import findings
from demo.own_data import NotUsable, own_stage
from demo.report import write_report
from demo.stage import Stage, invented_stage
from demo.story import Story
from demo.summary import print_summary

OUT = Path("demo-out")
MARKER = ".filmroom-demo"


def main() -> int:
    """Run the demo and return the exit code."""
    console = Console()
    arguments = _arguments()
    started = time.monotonic()
    try:
        root = _fresh(arguments.out)
        console.print(f"[bold]Filmroom[/]: everything is written below [bold]{root}[/]")
        stage = _stage(console, root, arguments.data)
        return _run(console, root, stage, started)
    except KeyboardInterrupt:
        console.print("\ninterrupted; every process was stopped")
        return 130
    except (CommandFailed, NotUsable) as failed:
        console.print(f"[bold red]the demo could not go on[/]: {failed}", markup=True, soft_wrap=True)
        return 1


def _run(console: Console, root: Path, stage: Stage, started: float) -> int:
    names = [ward.name for ward in stage.wards]
    with Consortium(root / "consortium", "filmroom-demo", names) as consortium:
        consortium.root.mkdir()
        story = Story(consortium, stage, console)
        evidence = story.tell()
    console.rule("[bold]For comparison: each hospital alone, and all images pooled", align="left")
    console.print("  (nobody could pool them in a federation; the demo owns all three hospitals)")
    _baselines(consortium, stage, str(evidence.run["run"]))
    baselines = load_baselines((consortium.root / "baselines.json").read_bytes())
    console.rule("[bold]Checked from outside", align="left")
    search = search_arrivals(evidence)
    checks = check_all(evidence, search)
    results = findings(evidence, story.seconds, baselines, search, checks, time.monotonic() - started)
    report = write_report(results, root)
    print_summary(console, results)
    console.print(f"\nreport: [bold]{report.resolve()}[/]\nmodel:  [bold]{evidence.bundle.resolve()}[/]")
    return 0 if all(check.held for check in checks) else 1


def _stage(console: Console, root: Path, data: Path | None) -> Stage:
    if data is not None:
        return own_stage(data, root / "inboxes")
    console.rule("[bold]Three hospitals fill their inboxes", align="left")
    with Progress(console=console) as bars:
        rows: dict[str, object] = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in rows:
                rows[name] = bars.add_task(f"  {name}", total=total)
            bars.update(rows[name], completed=done)  # type: ignore[arg-type] # rich's TaskID is an int

        stage = invented_stage(root / "inboxes", datetime.now(UTC), progress)
    console.print(f"  {stage.told}")
    return stage


def _baselines(consortium: Consortium, stage: Stage, run: str) -> None:
    """Run the comparisons in a process of their own; it ends with this one."""
    command = [
        sys.executable, "-m", "demo.baselines",
        "--task", str(consortium.root / "task.json"),
        "--recipient", f"urn:filmroom:federation|{consortium.federation}",
        "--at", datetime.now(UTC).isoformat(),
        "--models", str(consortium.home("coordinator") / "runs" / run),
        "--output", str(consortium.root / "baselines.json"),
    ]  # fmt: skip
    for ward in stage.wards:
        command += ["--site", f"{ward.name}={consortium.home(ward.name)}"]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise CommandFailed(command[1:], done.returncode, "")


def _fresh(out: Path) -> Path:
    """Return an empty folder for this run; what an earlier run left there is removed, and nothing else ever is."""
    root = out.resolve()
    if root.exists() and not (root / MARKER).exists() and any(root.iterdir()):
        raise CommandFailed(["demo"], 1, f"{root} exists and is not of an earlier demo; name another with --out")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / MARKER).touch()
    return root


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the one folder to write below")
    parser.add_argument("--data", type=Path, help="a folder of your own labelled DICOM")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
