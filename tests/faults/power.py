"""Power loss: the image of a loop-mounted ext4 that holds the home is copied in the middle of a run, as a power cut leaves it.

The page cache above the image is lost, what was synced is in it. What the run had acknowledged (printed outside the image)
before the copy must be there, whole. The group is stopped while the image is copied, so that the copy is of one moment.
"""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kill import tidy
from project import HERE, Project, Reference, processes_of, stages_with
from rounds import Skipped, Task

IMAGE_MB = 96
#: Copies of one run's image.
MOMENTS = 5
#: ext4 must not sync by itself during a run: seconds between its own commits.
COMMIT = 300


def run(task: Task) -> None:
    reference = task.reference()
    blank = task.work / "blank.img"
    with blank.open("wb") as file:
        file.truncate(IMAGE_MB << 20)
    path = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    made = subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", blank], capture_output=True, env=path)
    if made.returncode != 0:
        raise Skipped(f"mkfs.ext4: {made.stderr.decode().strip()}")
    for number in range(task.of(4, 60)):
        dice = random.Random(f"{task.seed}/power/{number}")
        project, cuts = cut_run(task, blank, reference, f"run-{number}", dice, {})
        for moment, cut in enumerate(cuts):
            # The copy is revived, not the cut itself, which stays for a look where the round fails.
            with task.round(f"run-{number}.{moment}"):
                revived(task, project, cut, reference)
    with task.control() as dice:
        shim = task.work / "nosync.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", shim, HERE / "nosync.c"], check=True)
        project, cuts = cut_run(task, blank, reference, "control", dice, {"LD_PRELOAD": str(shim)})
        for cut in cuts:
            revived(task, project, cut, reference)


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[None]:
    at.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-o", f"loop,noatime,commit={COMMIT}", image, at], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skipped(f"a loop mount needs root: {done.stderr.strip()}")
    try:
        yield
    finally:
        # The last process of a killed run may still be ending.
        for _ in range(50):
            if subprocess.run(["umount", at], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            subprocess.run(["umount", "-l", at], check=False)


@dataclass
class Cut:
    """The disk as a power cut would have left it at one moment, and the stages acknowledged before."""

    image: Path
    acknowledged: set[str]


def cut_run(
    task: Task, blank: Path, reference: Reference, name: str, dice: random.Random, env: dict
) -> tuple[Project, list[Cut]]:
    """Runs once on a new disk, and copies it at random moments."""
    project = task.project(name)
    disk, live = project.folder / "disk", project.folder / "live.img"
    copy(blank, live)
    cuts: list[Cut] = []
    with mounted(live, disk):
        project.home = disk / "home"
        moments = sorted(dice.uniform(0.1, 1.2) * reference.seconds for _ in range(MOMENTS))
        running = project.start("run", "small.yaml", "--json", env=env)
        for before, moment in zip([0.0, *moments], moments):
            time.sleep(moment - before)
            stand_still(project)
            cuts.append(Cut(project.folder / f"{len(cuts)}.img", set(stages_with(running.events(), "finished"))))
            copy(live, cuts[-1].image)
            project.signal_all(signal.SIGCONT)
        project.signal_all(signal.SIGKILL)
        running.wait()
    return project, cuts


def stand_still(project: Project) -> None:
    """Stops every process and waits until every thread has stopped: one inside a sync goes on to its end, and an image
    copied meanwhile would be torn."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        project.signal_all(signal.SIGSTOP)
        states = [state for process in processes_of(project.folder) for state in thread_states(process)]
        if all(state in "tTZX" for state in states):
            return
        time.sleep(0.002)
    raise RuntimeError("the run does not stop")


def thread_states(process: int) -> list[str]:
    states = []
    for stat in Path(f"/proc/{process}/task").glob("*/stat"):
        try:
            states.append(stat.read_text().rsplit(")", 1)[1].split()[0])
        except OSError:
            continue
    return states


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", source, target], check=True)


def revived(task: Task, project: Project, cut: Cut, reference: Reference) -> None:
    """The power is back: the copy is mounted where the disk was, and the run gone on with."""
    shutil.rmtree(project.folder / "out", ignore_errors=True)
    again = project.folder / "again.img"
    copy(cut.image, again)
    with mounted(again, project.folder / "disk"):
        empty = [path.name for path in project.objects() if path.stat().st_size == 0]
        if not project.home.exists():
            task.check(not cut.acknowledged, f"the home is gone, and {sorted(cut.acknowledged)} were printed as done")
        tries, is_done = project.finish()
        for done in tries:
            task.no_bug(done, "after the power cut")
        task.check(is_done, f"does not end well: {tries[-1].said()}")
        started = {stage for done in tries for stage in stages_with(done.events, "started")}
        lost = sorted(cut.acknowledged & started)
        task.check(not lost, f"printed as done, and lost: {lost}; {len(empty)} objects were empty")
        task.same(project, reference)
        tidy(task, project)
