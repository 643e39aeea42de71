"""The story a demo tells: three hospitals, one model, every round gated by consent.

Drives the public commands step by step and shows what happens. What was found is returned as plain values.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psutil
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from demo.checks import Evidence
from demo.consortium import CommandFailed
from demo.meter import Meter
from demo.stage import KILLED_IN, WITHDRAWS_IN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rich.console import Console

    from demo.consortium import Consortium
    from demo.stage import Stage, Ward

DATASET = "labelled"
PARTNER = "acme-imaging"
ROUND_S = 300.0


@dataclass(slots=True)
class Seconds:
    """When each round closed, and the CPU seconds of all processes until then."""

    submitted_at: float = 0.0
    cpu_at: dict[int, float] = field(default_factory=dict)
    total_cpu: float = 0.0


class Story:
    """One telling, from empty folders to the finished bundle."""

    def __init__(self, consortium: Consortium, stage: Stage, console: Console) -> None:
        self._consortium = consortium
        self._stage = stage
        self._console = console
        self._digest = ""
        self._run = ""
        self._copies: dict[str, int] = {}
        self.seconds = Seconds()
        self.access = consortium.root / "partner.json"
        self.withdraws = stage.wards[1 % len(stage.wards)]
        self.killed = stage.wards[-1].name
        self.patient_id = next(pid for pid, (_, outcome) in self.withdraws.expected.items() if outcome == "permit")

    def tell(self) -> Evidence:
        """Tell the story and return what it left behind.

        Raises: CommandFailed if a public command fails that should not.
        """
        self._open()
        refused = self._refuse_a_bad_task()
        self._digest = self._submit()
        self._admit_hospitals()
        cohorts = self._cohorts()
        with Meter(self._consortium) as meter:
            self._start_nodes()
            self._train(meter)
            self.seconds.total_cpu = meter.total()
        return self._gather(cohorts, refused)

    def _open(self) -> None:
        self._step("A coordinator starts; it knows no patient and has no images")
        self._consortium.set_up_coordinator({"record_arrivals": "arrivals", "minimum_count": self._stage.minimum_count})
        self._consortium.start("coordinator", until="listens")
        self._consortium.coordinator("partners", "add", PARTNER, "--to", str(self.access))

    def _refuse_a_bad_task(self) -> str:
        """Submit a task that names a component nobody installed; return why it was refused."""
        task = {**self._stage.task, "network": {"name": "DownloadedNet", "arguments": {}}}
        try:
            self._submit_document("bad-task.json", task)
        except CommandFailed as refusal:
            reason = refusal.said.strip().removeprefix("filmroom-coordinator: ")
            self._say(f"a task with unknown code: [red]{reason[:150]}[/]")
            return reason
        return ""

    def _submit(self) -> str:
        digest = self._submit_document("task.json", dict(self._stage.task))
        self._say(f"{PARTNER} submits a task, as data; its digest is {digest[:16]}…")
        return digest

    def _submit_document(self, name: str, task: dict[str, Any]) -> str:
        path = self._consortium.root / name
        path.write_text(json.dumps(task, indent=1))
        said = self._consortium.coordinator("tasks", "submit", str(path), "--access", str(self.access))
        return said.strip()

    def _admit_hospitals(self) -> None:
        self._step("Each hospital joins, takes its images in, loads consents, and decides")
        steps = 8
        with self._bars() as bars, ThreadPoolExecutor(len(self._stage.wards)) as pool:
            rows = {ward.name: bars.add_task(ward.title, total=steps) for ward in self._stage.wards}
            told = pool.map(lambda ward: self._admit(ward, lambda: bars.advance(rows[ward.name])), self._stage.wards)
            said = list(told)
        for line in said:
            self._say(line)

    def _admit(self, ward: Ward, done: Callable[[], None]) -> str:
        site = self._consortium.site
        self._consortium.set_up_site(ward.name, {"minimum_studies": self._stage.minimum_studies})
        done()
        summary = json.loads(site(ward.name, "ingest", str(ward.inbox), "--json"))
        self._copies[ward.name] = summary["already_known"]
        done()
        consents = self._consortium.root / f"{ward.name}.consents.json"
        consents.write_bytes(ward.consents)
        site(ward.name, "consents", "load", str(consents))
        done()
        terms = self._consortium.root / f"{ward.name}.terms.json"
        terms.write_text(json.dumps({"permission": "DUO:0000006", "modifiers": [{"code": "DUO:0000046"}]}))
        site(ward.name, "datasets", "register", DATASET, "--terms", str(terms), "--by", "data steward",
             "--modality", self._stage.modality)  # fmt: skip
        done()
        site(ward.name, "datasets", "approve", DATASET, "--by", "consent manager")
        done()
        site(ward.name, "tasks", "list")
        done()
        until = f"{datetime.now(UTC) + timedelta(days=365):%Y-%m-%d}"
        request = site(ward.name, "requests", "draft", DATASET, "--task", self._digest, "--by", "data steward",
                       "--submit").strip()  # fmt: skip
        site(ward.name, "requests", "approve", request, "--by", "consent manager", "--until", until)
        site(ward.name, "requests", "confirm", request, "--by", "medical director")
        done()
        site(ward.name, "tasks", "approve", self._digest, DATASET, "--by", "consent manager")
        done()
        return (
            f"{ward.title}: {summary['accepted']} files de-identified, [yellow]{summary['held']} held for a person[/], "
            f"[red]{summary['quarantined']} quarantined[/]"
        )

    def _cohorts(self) -> dict[str, dict[str, str]]:
        """Ask each hospital which studies are in and which are out."""
        found = {}
        for ward in self._stage.wards:
            rows = json.loads(self._consortium.site(ward.name, "cohort", self._digest, "--json"))
            found[ward.name] = {row["study"]: f"{row['outcome']}: {row['reason']}" for row in rows}
            permitted = sum(row["outcome"] == "permit" for row in rows)
            self._say(f"{ward.title}: {permitted} of {len(rows)} studies permitted by consent")
        return found

    def _start_nodes(self) -> None:
        self._step("Three site nodes start and connect, one outbound connection each")
        with ThreadPoolExecutor(len(self._stage.wards)) as pool:
            list(pool.map(lambda ward: self._consortium.start(ward.name, until="connected"), self._stage.wards))

    def _train(self, meter: Meter) -> None:
        rounds = self._stage.task["rounds"]
        self._step(f"{rounds} rounds of federated training")
        self.seconds.submitted_at = time.time()
        self._run = self._consortium.coordinator("runs", "start", self._digest).strip()
        with self._bars() as bars:
            row = bars.add_task("rounds", total=rounds)
            self._await(f"round 0/{rounds}", lambda said: "untrained model" in said)
            self.seconds.cpu_at[0] = meter.total()
            for number in range(1, rounds + 1):
                if number == WITHDRAWS_IN:
                    self._withdraw()
                if number == KILLED_IN:
                    self._kill()
                said = self._await(f"round {number}", _contains(f"round {number}/{rounds}:"))
                self.seconds.cpu_at[number] = meter.total()
                bars.update(row, completed=number)
                self._say(next(line for line in said.splitlines() if f"round {number}/" in line))
            self._await("the end", lambda said: f"{self._run} finished" in said or f"{self._run} failed" in said)

    def _withdraw(self) -> None:
        """Let a patient withdraw while the hospital trains on their images."""
        name = self.withdraws.name
        self._await_training(name, WITHDRAWS_IN)
        self._consortium.site(name, "consents", "withdraw", said=f"{self.patient_id}\n")
        self._say(f"[bold]{self.withdraws.title}: a patient withdraws; the running work is discarded[/]")

    def _kill(self) -> None:
        """Kill a site node as a power cut would, and start it again."""
        self._await_training(self.killed, KILLED_IN)
        self._consortium.kill(self.killed)
        self._say(f"[bold]{self.killed}: SIGKILL in the middle of training[/]")
        time.sleep(1.0)
        self._consortium.start(self.killed, until="connected")
        self._say(f"[bold]{self.killed} is back[/]")

    def _await_training(self, name: str, number: int) -> None:
        told = f"train: run {self._run}, round {number}"
        self._await(f"{name} in round {number}", lambda _: told in self._consortium.log(name))

    def _await(self, what: str, come: Callable[[str], bool]) -> str:
        """Wait until the coordinator's log shows that it has come, and return the log.

        Raises: CommandFailed if it does not come, or the run fails.
        """
        end = time.monotonic() + ROUND_S
        while not come(said := self._consortium.log("coordinator")):
            if time.monotonic() > end or (self._run and f"{self._run} failed" in said):
                raise CommandFailed(["waiting for", what], 1, said[-2000:])
            time.sleep(0.1)
        return said

    def _gather(self, cohorts: dict[str, dict[str, str]], refused: str) -> Evidence:
        self._step("The partner fetches the model; everyone is asked for the record")
        consortium = self._consortium
        bundle = consortium.root / "bundle"
        consortium.coordinator("models", "fetch", self._run, str(bundle), "--access", str(self.access))
        names = [ward.name for ward in self._stage.wards]
        rounds = {name: json.loads(consortium.site(name, "rounds", "--json")) for name in names}
        intake = {name: [*json.loads(consortium.site(name, "intake", "--json")), self._copy(name)] for name in names}
        record = json.loads(consortium.coordinator("runs", "show", self._run))
        started = [psutil.Process(pid) for pids in consortium.pids().values() for pid in pids]
        audit = self._audit()
        consortium.stop()
        _, alive = psutil.wait_procs(started, timeout=5)
        return Evidence(
            stage=self._stage,
            root=consortium.root,
            run=record,
            rounds=rounds,
            intake=intake,
            cohorts=cohorts,
            withdrawn=(self.withdraws.name, self.patient_id),
            killed=self.killed,
            audit=audit,
            bundle=bundle,
            inference=infer(bundle, self._example(names[0], cohorts[names[0]])),
            refused_task=refused,
            left_running=len(alive),
        )

    def _copy(self, name: str) -> dict[str, Any]:
        """Return the row of files that hold the same bytes as another; each is kept once."""
        return {"outcome": "copy", "reason": "the same bytes as another file", "files": self._copies[name]}

    def _audit(self) -> str:
        try:
            return self._consortium.coordinator("audit", self._run).strip()
        except CommandFailed as failed:
            self._say(f"[red]{failed.said}[/]")
            return ""

    def _example(self, name: str, cohort: Mapping[str, str]) -> Path:
        """Return the folder of one de-identified image series that a hospital may train on."""
        site = self._consortium.home(name) / "deidentified"
        permitted = [site / study for study, told in cohort.items() if told.startswith("permit:")]
        series = (folder for study in permitted for folder in study.iterdir())
        return max(series, key=lambda folder: (len(list(folder.iterdir())), folder))

    def _bars(self) -> Progress:
        columns = (TextColumn("  {task.description:<24}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        return Progress(*columns, TimeElapsedColumn(), console=self._console)

    def _step(self, title: str) -> None:
        self._console.rule(f"[bold]{title}", align="left")

    def _say(self, line: str) -> None:
        self._console.print(f"  {line}")


def _contains(text: str) -> Callable[[str], bool]:
    return lambda said: text in said


_INFER = """
import monai.bundle, sys
monai.bundle.run(
    bundle_root=sys.argv[1], config_file=sys.argv[1] + "/configs/inference.json",
    dataset_dir=sys.argv[2], output_dir=sys.argv[3],
)
"""


def infer(bundle: Path, series: Path) -> str:
    """Run the bundle on an image series with MONAI's bundle tools; return what came of it, empty if they failed."""
    images, output = bundle.parent / "inference-in", bundle.parent / "inference-out"
    images.mkdir()
    (images / "series").symlink_to(series, target_is_directory=True)
    done = subprocess.run(
        [sys.executable, "-c", _INFER, str(bundle), str(images), str(output)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    written = sorted(path.name for path in output.rglob("*") if path.is_file()) if output.is_dir() else []
    if done.returncode or not written:
        (bundle.parent / "inference.log").write_text(done.stdout + done.stderr)
        return ""
    return f"monai.bundle.run wrote {len(written)} prediction of a de-identified series ({written[0]})"
