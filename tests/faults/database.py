"""The lineage database locked by another, corrupt, deleted, without its write-ahead log, read-only.

The store is the truth: whatever happens to the database costs history at most, and says so; never a result.
"""

import json
import random
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from project import Done, Project, Reference, stages_with
from rounds import Task


def run(task: Task) -> None:
    reference = task.reference()
    for number, seconds in enumerate(task.of([8], [5, 15, 30])):
        with task.round(f"locked-{number}"):
            locked(task, task.project(f"locked-{number}"), reference, seconds)
    with task.round("shut"):
        shut(task, reference)
    for number in range(task.of(6, 60)):
        with task.round(f"corrupt-{number}") as dice:
            corrupt(task, task.project(f"corrupt-{number}"), reference, dice)
    for number in range(task.of(3, 20)):
        with task.round(f"wal-{number}") as dice:
            without_log(task, task.project(f"wal-{number}"), reference, dice, ["-wal", "-shm", ""][number % 3])
    with task.round("deleted"):
        project = finished(task, "deleted")
        for file in project.home.glob("lineage.db*"):
            file.unlink()
        all_cached(task, project, reference)
    if task.has("doctor") and "--rebuild" in task.project("asks").llmflow("doctor", "--help").out:
        with task.round("rebuilt"):
            rebuilt(task, finished(task, "rebuilt"), reference)
    with task.round("empty"):
        project = finished(task, "empty")
        for file in project.home.glob("lineage.db-*"):
            file.unlink()
        (project.home / "lineage.db").write_bytes(b"")
        all_cached(task, project, reference)
    read_only(task, reference)
    # Is the lock real? A writer that does not wait must be refused; and a home without its store must show as work to do.
    with task.control():
        project = finished(task, "control")
        with lock(project.home / "lineage.db"):
            try:
                sqlite3.connect(project.home / "lineage.db", timeout=0).execute("BEGIN IMMEDIATE")
                raise AssertionError("the lock holds nobody up")
            except sqlite3.OperationalError:
                pass
        shutil.rmtree(project.home / "store")
        all_cached(task, project, reference)


def finished(task: Task, name: str) -> Project:
    project = task.project(name)
    done = project.run()
    if done.code != 0:
        raise RuntimeError(f"the undisturbed run failed: {done.said()}")
    return project


@contextmanager
def lock(database: Path) -> Iterator[None]:
    """Holds the database as another writer would."""
    holder = sqlite3.connect(database, isolation_level=None, timeout=30)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


def locked(task: Task, project: Project, reference: Reference, seconds: float) -> None:
    """Another process writes for this long, in the middle of a run."""
    running = project.start("run", "small.yaml", "--json")
    if not running.wait_for(lambda events: bool(stages_with(events, "finished"))):
        raise RuntimeError(f"nothing finished: {running.wait().said()}")
    held = threading.Event()

    def hold() -> None:
        with lock(project.home / "lineage.db"):
            held.set()
            time.sleep(seconds)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    done = running.wait()
    holder.join()
    task.no_bug(done, f"locked for {seconds} s")
    task.check(done.code == 0, f"locked for {seconds} s: {done.said()}")
    task.same(project, reference)


def shut(task: Task, reference: Reference) -> None:
    """Another process writes from before the run begins, for longer than anybody waits: results come, their history cannot."""
    project = task.project("shut")
    task.check((done := project.llmflow("plan", "small.yaml")).code == 0, done.said())
    with lock(project.home / "lineage.db"):
        done = project.run()
    task.check(done.code == 3 and '"help":"' in done.out and "lineage/locked" in done.out, f"no clear refusal: {done.said()}")
    task.check(not stages_with(done.events, "finished"), "a stage was told as done before its history was written")
    all_cached(task, project, reference)
    again = project.run()
    task.check(not any(event["event"] == "run_started" for event in again.events), "the same is recorded twice")


def all_cached(task: Task, project: Project, reference: Reference) -> None:
    """The next run computes nothing, and the history answers again: of every stage, with what it gave."""
    done = project.run()
    task.no_bug(done, "the next run")
    task.check(done.code == 0, f"the next run: {done.said()}")
    started = stages_with(done.events, "started")
    task.check(not started, f"results were in the store, and {started} ran again")
    blobs = project.blobs()
    task.check(reference.blobs.items() <= blobs.items(), "a blob is gone or has other bytes")
    shown = project.llmflow("show", "@", "--json")
    told = json.loads(shown.out) if shown.code == 0 else {"status": shown.said(), "stages": []}
    task.check(told["status"] == "done", f"the newest run in the history is {told['status']}")
    given = {stage["stage"]: {output["port"]: output["digest"] for output in stage["outputs"]} for stage in told["stages"]}
    task.check(given == reference.outputs, f"the history has {given}, not {reference.outputs}")


def rebuilt(task: Task, project: Project, reference: Reference) -> None:
    """The database is lost and made again from the store: the same runs, the same results."""
    project.llmflow("run", "small.yaml", "--set", "clean.min_words=6")
    asked = lambda: {row["run"]: row["status"] for row in json.loads(project.llmflow("runs", "--json").out)}
    runs, outputs = asked(), project.outputs()
    for file in project.home.glob("lineage.db*"):
        file.unlink()
    done = project.llmflow("doctor", "--rebuild")
    task.no_bug(done, "doctor --rebuild")
    task.check(done.code == 0, f"doctor --rebuild: {done.said()}")
    task.check(asked() == runs, f"other runs after rebuilding: {asked()}, not {runs}")
    task.check(project.outputs() == outputs, "other results after rebuilding")
    all_cached(task, project, reference)


def heal(task: Task, project: Project, refusal: Done) -> None:
    """Does what the refusal says."""
    task.check(refusal.code == 3 and '"help":"' in refusal.out, f"no clear refusal: {refusal.said()}")
    if task.has("doctor"):
        rebuilt = project.llmflow("doctor", "--rebuild")
        task.check(rebuilt.code == 0, f"`doctor --rebuild`: {rebuilt.said()}")
        return
    for file in project.home.glob("lineage.db*"):
        file.rename(project.folder / f"moved-{file.name}")


def corrupt(task: Task, project: Project, reference: Reference, dice: random.Random) -> None:
    """Random bytes over random pages, the header's among them."""
    done = project.run()
    task.check(done.code == 0, done.said())
    sqlite3.connect(project.home / "lineage.db").execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    database = project.home / "lineage.db"
    data = bytearray(database.read_bytes())
    pages = len(data) // 4096
    for page in {0} if dice.random() < 0.3 else set(dice.sample(range(pages), dice.randint(1, max(1, pages // 2)))):
        data[page * 4096 : page * 4096 + 4096] = dice.randbytes(4096)
    database.write_bytes(data)
    # A changed param: a run with nothing to do need not open the database at all.
    done = project.llmflow("run", "small.yaml", "--json", "--set", "clean.min_words=6")
    task.no_bug(done, "run on a corrupt database")
    if done.code != 0:
        heal(task, project, done)
    all_cached(task, project, reference)


def without_log(task: Task, project: Project, reference: Reference, dice: random.Random, suffix: str) -> None:
    """A killed run leaves a write-ahead log; it, its index, or the database beside it is deleted."""
    running = project.start("run", "small.yaml", "--json")
    time.sleep(dice.uniform(0.3, 0.9) * reference.seconds)
    running.kill_group()
    acknowledged = set(stages_with(running.wait().events, "finished"))
    (project.home / f"lineage.db{suffix}").unlink(missing_ok=True)
    done = project.run()
    task.no_bug(done, f"without lineage.db{suffix}")
    if done.code != 0:
        heal(task, project, done)
        done = project.run()
    task.check(done.code == 0, f"without lineage.db{suffix}: {done.said()}")
    again = acknowledged & set(stages_with(done.events, "started"))
    task.check(not again, f"printed as done, and computed again: {sorted(again)}")
    task.same(project, reference)


def read_only(task: Task, reference: Reference) -> None:
    """The whole home on a read-only file system: queries answer, a run that must write refuses with exit 3."""
    with task.round("read-only"):
        project = task.project("read-only")
        mount = project.folder / "disk"
        mount.mkdir()
        project.home = mount / "home"
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", mount], capture_output=True)
        if mounted.returncode != 0:
            task.count -= 1
            task.notes.append("read-only home not tried: mounting needs root")
            return
        try:
            task.check((done := project.run()).code == 0, done.said())
            subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
            shown = project.llmflow("show", "@", "--json")
            task.no_bug(shown, "show on a read-only home")
            task.check(shown.code in (0, 3), f"`show` on a read-only home: {shown.said()}")
            done = project.llmflow("run", "small.yaml", "--json", "--set", "clean.min_words=6")
            task.no_bug(done, "run on a read-only home")
            task.check(done.code == 3, f"`run` on a read-only home: {done.said()}")
            subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
            all_cached(task, project, reference)
        finally:
            subprocess.run(["umount", "-l", mount], check=False)
