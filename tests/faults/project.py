"""A project in a folder of its own, the program run in it, and what that left behind.

Nothing here knows a fault. The files below `store/` are read as DESIGN.md §8 names them, whatever their depth; everything
else is asked of the program itself.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "pipelines/data/tiny"
#: In the environment of everything a project starts, so that what it leaves behind can be found.
TAG = "LLMFLOW_FAULTS_TAG"
#: No command of the small pipeline may take longer, in seconds.
PATIENCE = 120
#: How often an interrupted run is gone on with before it counts as stuck.
MOST_RESUMES = 8


@dataclass
class Done:
    """How a command ended."""

    code: int  # negative: the signal that ended it
    out: str
    err: str
    seconds: float

    @property
    def events(self) -> list[dict]:
        return events_in(self.out)

    def said(self) -> str:
        """What it said went wrong, or its last lines, for a message."""
        said = json_lines(self.out)
        failures = [line.get("failure") or line.get("error") for line in said if line.get("failure") or line.get("error")]
        parts = lambda failure: [failure["code"], failure["message"], *failure["causes"], failure["help"] or ""]
        lines = [" ".join(parts(failure)).strip() for failure in failures[-2:] if isinstance(failure, dict)]
        lines += (self.err or ("" if failures else self.out)).strip().splitlines()[-4:]
        return f"exit {self.code}: " + " | ".join(line.strip() for line in lines)[:500]


def events_in(text: str) -> list[dict]:
    """The events of `--json`."""
    return [line for line in json_lines(text) if "event" in line]


def json_lines(text: str) -> list[dict]:
    """The documents of `--json`; a last line cut short by a kill is none."""
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict)]


def stages_with(events: list[dict], *names: str) -> list[str]:
    return [event["stage"] for event in events if event["event"] in names and event.get("stage")]


@dataclass
class Running:
    """A command in progress, in a process group of its own. What it prints goes to files outside the home."""

    process: subprocess.Popen
    out: Path
    err: Path
    began: float = field(default_factory=time.monotonic)

    def events(self) -> list[dict]:
        return events_in(self.out.read_text(errors="replace"))

    def kill_group(self, number: int = signal.SIGKILL) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def wait(self, seconds: float = PATIENCE) -> Done:
        """Its end. One that outlasts `seconds` is killed and ends with -9 and a word on standard error."""
        code, late = self.ended_within(seconds), ""
        if code is None:
            self.kill_group()
            code, late = self.process.wait(), f"\nkilled: still running after {seconds:.0f} s"
        text = [path.read_text(errors="replace") for path in (self.out, self.err)]
        return Done(code, text[0], text[1] + late, time.monotonic() - self.began)

    def ended_within(self, seconds: float) -> int | None:
        """Its exit code, if it ends within so many seconds; seconds in which somebody had it stopped do not count."""
        left = seconds
        while left > 0:
            try:
                return self.process.wait(min(left, 0.5))
            except subprocess.TimeoutExpired:
                left -= 0 if state_of(self.process.pid) in ("T", "t") else 0.5
        return None

    def wait_for(self, holds: Callable[[list[dict]], bool], seconds: float = 30) -> bool:
        """Until the events so far hold something; false if the command ended first."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if holds(self.events()):
                return True
            if self.process.poll() is not None:
                return holds(self.events())
            time.sleep(0.005)
        return False


class Project:
    """A folder that looks like a checkout, so that `.llmflow/` is made in it and nowhere else."""

    def __init__(self, binary: Path, folder: Path, home: Path | None = None):
        self.binary, self.folder = binary, folder
        self.home = home or folder / ".llmflow"
        self._number = 0
        (folder / ".git").mkdir(parents=True)
        (folder / "logs").mkdir()
        shutil.copytree(DATA, folder / "data")
        shutil.copy(HERE / "small.yaml", folder / "small.yaml")

    def environment(self, more: dict | None = None) -> dict:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LLMFLOW_")}
        return clean | {"NO_COLOR": "1", "COLUMNS": "100", TAG: str(self.folder)} | (more or {})

    def start(self, *words: str, before: list[str] | None = None, env: dict | None = None, **how) -> Running:
        """Starts `llmflow WORDS`; `before` are words in front of it (strace, faketime)."""
        self._number += 1
        out, err = (self.folder / f"logs/{self._number}.{kind}" for kind in ("out", "err"))
        words = [*(before or []), str(self.binary), *map(str, words), "--home", str(self.home)]
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                words, cwd=self.folder, env=self.environment(env), stdin=subprocess.DEVNULL,
                stdout=to_out, stderr=to_err, start_new_session=True, **how,
            )  # fmt: skip
        return Running(process, out, err)

    def llmflow(self, *words: str, seconds: float = PATIENCE, **how) -> Done:
        return self.start(*words, **how).wait(seconds)

    def signal_all(self, number: int) -> None:
        """Signals every process of the project, in whatever group: workers may have groups of their own."""
        for process in processes_of(self.folder):
            try:
                os.kill(process, number)
            except ProcessLookupError:
                pass

    def run(self, **how) -> Done:
        return self.llmflow("run", "small.yaml", "--json", **how)

    def resume(self) -> Done:
        """`resume`, or `run` where the run was killed before it was recorded."""
        done = self.llmflow("resume", "--json")
        nothing_recorded = done.code in (1, 2) and not done.events
        return self.run() if nothing_recorded else done

    def finish(self) -> tuple[list[Done], bool]:
        """Resumes until done. Every try, and whether the last one ended well."""
        tries: list[Done] = []
        while len(tries) < MOST_RESUMES and not (tries and tries[-1].code == 0):
            tries.append(self.resume())
        return tries, tries[-1].code == 0

    def objects(self, *kinds: str) -> list[Path]:
        """Every file of the store's `blobs`, `artifacts`, `keys`, or only those kinds."""
        roots = [self.home / "store" / kind for kind in kinds or ("blobs", "artifacts", "keys")]
        return sorted(path for root in roots for path in root.rglob("*") if path.is_file())

    def blobs(self) -> dict[str, str]:
        return {path.name: sha256(path) for path in self.objects("blobs")}

    def published(self) -> dict[str, str]:
        files = sorted(path for path in (self.folder / "out").rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): sha256(path) for path in files}

    def outputs(self, **how) -> dict[str, dict[str, str]]:
        """Stage → port → digest, as the newest run has them; what that one does not know, a plan finds in the store."""
        done = self.llmflow("show", "@", "--json", **how)
        stages = json.loads(done.out)["stages"] if done.code == 0 else []
        found = {stage["stage"]: {output["port"]: output["digest"] for output in stage["outputs"]} for stage in stages}
        if not found or any(digest is None for ports in found.values() for digest in ports.values()):
            planned = json.loads(self.llmflow("plan", "small.yaml", "--json", **how).out)["stages"]
            finished = {stage["stage"]: stage["will"].get("finished") for stage in planned}
            found |= {stage: record["outputs"] for stage, record in finished.items() if record}
        return found

    def status(self) -> str:
        """How the newest run stands, as the history has it."""
        done = self.llmflow("show", "@", "--json")
        return json.loads(done.out)["status"] if done.code == 0 else done.said()

    def litter(self) -> list[str]:
        """What no finished run should leave: temporary files, checkpoints of finished work, scratch."""
        folders = [self.home / "store/tmp", self.home / "store/partial", self.home / "work/scratch"]
        return [str(path.relative_to(self.home)) for folder in folders for path in folder.rglob("*") if path.is_file()]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Reference:
    """What the undisturbed run gave."""

    outputs: dict
    blobs: dict
    published: dict
    seconds: float

    def differences(self, project: Project) -> list[str]:
        """Where a finished project differs from this one; empty if every byte is the same."""
        found = []
        outputs = project.outputs()
        for stage, ports in self.outputs.items():
            if outputs.get(stage) != ports:
                found.append(f"stage `{stage}` gave {outputs.get(stage)}, not {ports}")
        blobs = project.blobs()
        wanted = [name for name, digest in self.blobs.items() if blobs.get(name) != digest]
        if wanted:
            found.append(f"{len(wanted)} of {len(self.blobs)} blobs missing or of other bytes: {wanted[0]}")
        if project.published() != self.published:
            found.append(f"published {sorted(project.published())} with other names or bytes")
        return found


def reference(project: Project) -> Reference:
    """Runs the project undisturbed, twice: the second run must find everything."""
    first = project.run()
    if first.code != 0:
        raise SystemExit(f"the undisturbed run failed, no fault was injected: {first.said()}")
    again = project.run()
    if again.code != 0 or stages_with(again.events, "started"):
        raise SystemExit(f"a second undisturbed run computes again: {again.said()}")
    return Reference(project.outputs(), project.blobs(), project.published(), first.seconds)


def state_of(process: int) -> str:
    """The letter of its state: `T` is stopped, `Z` a zombie; empty if there is none such."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def processes_of(tag: Path) -> list[int]:
    """Living processes that carry a project's tag in their environment."""
    mark, found = f"{TAG}={tag}".encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            is_ours = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if is_ours and state_of(int(entry.name)) not in ("", "Z", "X"):
            found.append(int(entry.name))
    return found
