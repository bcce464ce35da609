"""A clock that is wrong or jumps (faketime): what was done stays done, and an edit is still noticed."""

import json
import os
import random
import shutil
from pathlib import Path

from project import Project, Reference, stages_with
from rounds import Skipped, Task

CLOCKS = {
    "+20 min": "+1200",
    "-2 days": "-172800",
    "1970": "1970-01-02 00:00:00",
    "2100": "2100-01-01 00:00:00",
    "twice as fast": "+0 x2",
}


def run(task: Task) -> None:
    if not shutil.which("faketime"):
        raise Skipped("faketime is not installed: tests/faults/install.sh")
    library = next(Path("/usr/lib").rglob("libfaketimeMT.so.1"), None)
    if library is None:
        raise Skipped("libfaketime is not installed: tests/faults/install.sh")
    reference = task.reference()
    for name, clock in CLOCKS.items():
        env = {"LD_PRELOAD": str(library), "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        with task.round(f"then {name}"):
            project = task.project(f"then {name}")
            task.check((done := project.run()).code == 0, done.said())
            cached(task, project, reference, env)
        with task.round(f"first {name}"):
            project = task.project(f"first {name}")
            task.check((done := project.run(env=env)).code == 0, done.said())
            cached(task, project, reference, {})
            in_order(task, project)
    for number in range(task.of(3, 20)):
        with task.round(f"jump-{number}") as dice:
            jump(task, task.project(f"jump-{number}"), reference, library, dice)
    with task.round("file times") as dice:
        file_times(task, task.project("file times"), reference, dice)
    # Is the clock really wrong, and does an edit count under it?
    with task.control():
        project = task.project("control")
        env = {"LD_PRELOAD": str(library), "FAKETIME": CLOCKS["2100"], "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        project.run(env=env)
        runs = project.llmflow("runs", "--json").out
        assert "410244" in runs, f"faketime does nothing to this program: {runs[:200]}"
        edit(project)
        cached(task, project, reference, env)


def cached(task: Task, project: Project, reference: Reference, env: dict) -> None:
    done = project.run(env=env)
    task.no_bug(done, "under another clock")
    task.check(done.code == 0, f"under another clock: {done.said()}")
    started = stages_with(done.events, "started")
    task.check(not started, f"ran again for the clock alone: {started}")
    task.same(project, reference)


def in_order(task: Task, project: Project) -> None:
    """History is in the order of what happened, not of the clock: `@` is the run made last."""
    done = project.llmflow("run", "small.yaml", "--json", "--set", "clean.min_words=6")
    task.check(done.code == 0, done.said())
    mine = next((event["run"] for event in done.events if "run" in event), None)
    newest = json.loads(project.llmflow("show", "@", "--json").out)["run"]
    task.check(mine == newest, f"`@` is {newest}, not the run made last, {mine}")


def jump(task: Task, project: Project, reference: Reference, library: Path, dice: random.Random) -> None:
    """The clock jumps in the middle of a run."""
    stamp = project.folder / "clock"
    stamp.write_text("+0\n")
    env = {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(stamp), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    running = project.start("run", "small.yaml", "--json", env=env)
    for _ in range(3):
        running.wait_for(lambda events: len(events) > dice.randint(3, 40), 3)
        stamp.write_text(f"{dice.choice([-1, 1]) * dice.randint(60, 400_000_000):+d}\n")
    done = running.wait()
    task.no_bug(done, "a clock that jumps")
    task.check(done.code == 0, f"a clock that jumps: {done.said()}")
    cached(task, project, reference, {})


def file_times(task: Task, project: Project, reference: Reference, dice: random.Random) -> None:
    """Other times of the sources change nothing; other bytes under the old time and size do."""
    task.check((done := project.run()).code == 0, done.said())
    for path in (project.folder / "data").iterdir():
        time = dice.choice([0, 1, 4_102_444_800, dice.randint(0, 2_000_000_000)])
        os.utime(path, (time, time))
    cached(task, project, reference, {})
    edit(project)
    done = project.run()
    task.check("rows" in stages_with(done.events, "started"), f"an edit that keeps size and time is missed: {done.said()}")


def edit(project: Project) -> None:
    """Other bytes of the same size, under the same time of modification."""
    path = project.folder / "data/instructions.jsonl"
    before = path.stat()
    text = path.read_text()
    path.write_text(text.replace("e", "a", 40))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
