"""Kills and errors at chosen durable calls, by strace.

A kill takes down the process that makes its N-th such call, engine or worker. An error (ENOSPC, EIO) is returned once,
or from the N-th call on; the command must then end with exit 3, or get over it, and `resume` must end with the same
bytes. A point that the run never reaches is drawn anew, and does not count.
"""

import random
import re
import shutil
from collections import Counter

from kill import gone_on, lose_a_commit
from project import Done, Project, stages_with
from rounds import Skipped, Task

DURABLE = [
    "fsync", "fdatasync", "sync_file_range", "syncfs", "rename", "renameat", "renameat2", "link", "linkat", "unlink",
    "unlinkat", "pwrite64", "ftruncate", "mkdir",
]  # fmt: skip
#: What each call is made to fail with. Removing is housekeeping: an error there may be passed over, a kill may not.
ERRORS = {"EIO": {"fsync", "fdatasync", "pwrite64", "rename", "renameat2", "linkat", "syncfs", "sync_file_range"},
          "ENOSPC": {"pwrite64", "rename", "renameat2", "linkat", "ftruncate", "mkdir", "fsync"}}  # fmt: skip
#: How often a point that was not reached is drawn anew.
DRAWS = 4


def run(task: Task) -> None:
    if not shutil.which("strace"):
        raise Skipped("strace is not installed: tests/faults/install.sh")
    reference = task.reference()
    most = most_calls(task)
    for number in range(task.of(24, 50)):
        with task.round(f"kill-{number}") as dice:
            injected_round(task, f"kill-{number}", most, dice, reference, None)
    for error in ERRORS:
        for number in range(task.of(6, 25)):
            with task.round(f"{error}-{number}") as dice:
                injected_round(task, f"{error}-{number}", most, dice, reference, error)
    with task.control():
        injected_round(task, "control", most, random.Random(3), reference, None, loses_a_commit=True)


def traced(project: Project, *words: str, inject: list[str] = ()) -> tuple[Done, str]:
    """Runs a command under strace. How it ended, and what strace saw of the durable calls."""
    seen = project.folder / "logs/strace"
    options = ["-f", "--seccomp-bpf", "-qq", "-o", str(seen), "-e", f"trace={','.join(DURABLE)}", *inject]
    done = project.llmflow(*words, before=["strace", *options])
    return done, seen.read_text(errors="replace")


def most_calls(task: Task) -> Counter:
    """For each call, how often the thread that makes it most makes it: strace counts by thread."""
    project = task.project("counting")
    done, seen = traced(project, "run", "small.yaml", "--json")
    if done.code != 0:
        raise Skipped(f"the program does not run under strace here: {done.said()}")
    by_thread = Counter(re.findall(r"^(\d+) +(\w+)\(", seen, re.MULTILINE))
    most: Counter = Counter()
    for (_, call), count in by_thread.items():
        most[call] = max(most[call], count)
    total = sum(by_thread.values())
    task.notes.append(f"{total} durable calls in an undisturbed run")
    return most


def injected_round(
    task: Task, label: str, most: Counter, dice: random.Random, reference, error: str | None, loses_a_commit=False
) -> None:
    calls = sorted(call for call in most if error is None or call in ERRORS[error])
    for _ in range(DRAWS):
        call = dice.choices(calls, weights=[most[call] ** 0.5 for call in calls])[0]
        at = dice.randint(1, most[call])
        ever_after = "+" if error and dice.random() < 0.5 else ""
        what = f"error={error}" if error else "signal=SIGKILL"
        point = f"{call}:{what}:when={at}{ever_after}"
        project = task.project(label)
        done, seen = traced(project, "run", "small.yaml", "--json", inject=["-e", f"inject={point}"])
        if "INJECTED" in seen or "killed by SIGKILL" in seen:
            break
    else:
        task.count -= 1
        return
    task.no_bug(done, point)
    acknowledged = set(stages_with(done.events, "finished"))
    if error is None and dice.random() < 0.3:  # and again while it recovers
        call = dice.choice(calls)
        second = f"{call}:signal=SIGKILL:when={dice.randint(1, most[call])}"
        recovered, _ = traced(project, "run", "small.yaml", "--json", inject=["-e", f"inject={second}"])
        again = acknowledged & set(stages_with(recovered.events, "started"))
        task.check(not again, f"{point}: printed as done, and computed again: {sorted(again)}")
        acknowledged |= set(stages_with(recovered.events, "finished"))
        point = f"{point}, then {second}"
    if error:
        task.check(done.code in (0, 3), f"{point}: neither exit 3 nor a good end, {done.said()}")
    if loses_a_commit:
        lose_a_commit(project)
    before = len(task.failures)
    gone_on(task, project, reference, acknowledged)
    task.failures[before:] = [f"{failure} [{point}]" for failure in task.failures[before:]]
