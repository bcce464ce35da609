"""Disks of several sizes, most of them too small: exit 3 with bytes in words, nothing wrong kept, and the same bytes once there is room."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kill import tidy
from project import Project, Reference, stages_with
from rounds import Skipped, Task

#: A size in words: `3.1 MB`, `212 GiB free`, `4,096 bytes`.
BYTES = re.compile(r"\d[\d.,]*\s?(?:[KMGT]i?B|kB|B\b|bytes)")
#: The largest disk tried, as a multiple of the most that the undisturbed run was seen to use.
MOST_ROOM = 1.5
ROOM_KB = 256 << 10


def run(task: Task) -> None:
    reference = task.reference()
    need_kb = most_used_kb(task)
    task.notes.append(f"the undisturbed run uses {need_kb} kB")
    steps = task.of(8, 20)
    sizes = [max(64, int(need_kb * MOST_ROOM * (step + 1) / steps)) for step in range(steps)]
    outcomes = []
    for size in sizes:
        with task.round(f"size-{size}"):
            outcomes.append(filled(task, f"size-{size}", size, reference))
    task.notes.append(f"{outcomes.count(3)} of {len(outcomes)} sizes were too small")
    task.check(3 in outcomes and 0 in outcomes, f"too small and large enough disks were meant: {outcomes}")
    # A disk that is never given room must show as a run that does not end.
    with task.control():
        filled(task, "control", need_kb // 3, reference, gives_room=False)


@contextmanager
def disk(at: Path, size_kb: int) -> Iterator[None]:
    at.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", at], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skipped(f"mounting needs root: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", at], check=False)


def most_used_kb(task: Task) -> int:
    project = task.project("measured")
    with disk(project.folder / "disk", ROOM_KB):
        project.home = project.folder / "disk/home"
        running, most = project.start("run", "small.yaml", "--json"), 0
        while running.process.poll() is None:
            state = os.statvfs(project.folder / "disk")
            most = max(most, (state.f_blocks - state.f_bfree) * state.f_frsize >> 10)
            time.sleep(0.002)
        done = running.wait()
        if done.code != 0:
            raise SystemExit(f"the undisturbed run failed, no fault was injected: {done.said()}")
        return most


def filled(task: Task, name: str, size_kb: int, reference: Reference, gives_room: bool = True) -> int:
    """Runs on a disk of this size, then on the same disk with room. The first exit code."""
    project = task.project(name)
    mount = project.folder / "disk"
    with disk(mount, size_kb):
        project.home = mount / "home"
        first = project.run()
        task.no_bug(first, f"a disk of {size_kb} kB")
        task.check(first.code in (0, 3), f"a disk of {size_kb} kB: {first.said()}")
        if first.code == 3:
            said = first.said()
            task.check("space" in said or "disk" in said, f"does not say that the disk is full: {said}")
            task.check(bool(BYTES.search(said)), f"names no bytes: {said}")
        acknowledged = set(stages_with(first.events, "finished"))
        if gives_room:
            subprocess.run(["mount", "-o", f"remount,size={ROOM_KB}k", mount], check=True)
        tries, is_done = project.finish()
        if not task.check(is_done, f"with room again: {tries[-1].said()}"):
            return first.code
        again = acknowledged & {stage for done in tries for stage in stages_with(done.events, "started")}
        task.check(not again, f"printed as done, and computed again: {sorted(again)}")
        task.same(project, reference)
        tidy(task, project)
        return first.code
