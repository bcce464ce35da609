"""Ctrl-C once and twice, SIGTERM, SIGHUP, SIGUSR1, a closed terminal, a killed engine: the program ends, its workers with it."""

import os
import pty
import random
import re
import signal
import subprocess
import time

from project import PATIENCE, Done, Project, Reference, Running, processes_of, stages_with
from rounds import Task

#: Workers may outlive their engine so long, and a first signal may take so long, in seconds.
ORPHANED, SAVING, AT_ONCE = 5.0, 5.0, 1.5
#: Of pre-training: a run of half a minute.
LONG = ["--set", "steps=6000"]


def run(task: Task) -> None:
    for number in range(task.of(2, 20)):
        for name, how in CASES.items():
            with task.round(f"{name}-{number}") as dice:
                project = task.project(f"{name}-{number}")
                running = start(project, name)
                how(task, project, running, dice)
                no_orphans(task, project, name)
                goes_on(task, project)
    # A process that outlives the engine, with the engine's environment, must be found.
    with task.control():
        project = task.project("control")
        orphan = subprocess.Popen(["sleep", "60"], env=project.environment(), start_new_session=True)
        no_orphans(task, project, "control", seconds=0.5)
        orphan.kill()
        orphan.wait()


def start(project: Project, name: str) -> Running:
    """A run in the middle of its long stage."""
    words = ["run", "small.yaml", "--json", *LONG]
    running = terminal(project, words) if name == "terminal" else project.start(*words)
    if not running.wait_for(lambda events: any(e["event"] == "checkpoint" for e in events)):
        raise RuntimeError(f"training did not begin: {running.wait(5).said()}")
    return running


class Terminal(Running):
    """A command on a terminal of its own; its events go to a file all the same."""

    master: int = -1

    def close(self) -> None:
        os.close(self.master)


def terminal(project: Project, words: list[str]) -> Terminal:
    master, slave = pty.openpty()
    out, err = project.folder / "logs/terminal.out", project.folder / "logs/terminal.err"

    def settle() -> None:
        os.setsid()
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    err.touch()
    with out.open("wb") as to_out:
        process = subprocess.Popen(
            [project.binary, *words, "--home", project.home], cwd=project.folder, env=project.environment(),
            stdin=slave, stdout=to_out, stderr=slave, preexec_fn=settle,
        )  # fmt: skip
    os.close(slave)
    running = Terminal(process, out, err)
    running.master = master
    return running


def interrupt(number: int):
    def how(task: Task, project: Project, running: Running, dice: random.Random) -> None:
        """One signal: saves, says how to go on, exit 130."""
        began = time.monotonic()
        os.kill(running.process.pid, number)
        done = running.wait(SAVING + 10)
        took = time.monotonic() - began
        task.no_bug(done, signal.Signals(number).name)
        task.check(done.code == 130, f"{signal.Signals(number).name}: not 130, {done.said()}")
        task.check(took <= SAVING, f"{signal.Signals(number).name}: took {took:.1f} s")
        if done.code == 130:
            plain = project.llmflow("runs")
            task.check("interrupted" in plain.out, f"`runs` does not say interrupted: {plain.said()}")

    return how


def group(task: Task, project: Project, running: Running, dice: random.Random) -> None:
    """Ctrl-C in a terminal reaches the workers too."""
    running.kill_group(signal.SIGINT)
    done = running.wait(SAVING + 10)
    task.check(done.code == 130, f"SIGINT to the group: {done.said()}")
    task.no_bug(done, "SIGINT to the group")


def twice(task: Task, project: Project, running: Running, dice: random.Random) -> None:
    os.kill(running.process.pid, signal.SIGINT)
    time.sleep(dice.uniform(0, 0.05))
    began = time.monotonic()
    if running.process.poll() is None:
        os.kill(running.process.pid, signal.SIGINT)
    done = running.wait(SAVING + 10)
    took = time.monotonic() - began
    task.check(done.code == 130, f"SIGINT twice: {done.said()}")
    task.check(took <= AT_ONCE, f"SIGINT twice: took {took:.1f} s")


def killed(task: Task, project: Project, running: Running, dice: random.Random) -> None:
    """The engine alone is killed; its workers see it."""
    os.kill(running.process.pid, signal.SIGKILL)
    running.wait()
    listed = project.llmflow("runs", "--json")
    task.check(listed.code == 0 and '"running"' not in listed.out, "a killed run is shown as running")
    task.check(listed.seconds < 1, f"`runs` took {listed.seconds:.1f} s after a kill")


def hung_up(task: Task, project: Project, running: Running, dice: random.Random) -> None:
    os.kill(running.process.pid, signal.SIGHUP)
    done = running.wait(SAVING + 10)
    task.check(done.code in (130, -signal.SIGHUP), f"SIGHUP: {done.said()}")


def closed(task: Task, project: Project, running: Terminal, dice: random.Random) -> None:
    """The terminal window is closed."""
    running.close()
    done = running.wait(SAVING + 10)
    task.check(done.code in (130, -signal.SIGHUP), f"terminal closed: {done.said()}")


def worker_killed(task: Task, project: Project, running: Running, dice: random.Random) -> None:
    """A worker is killed: its stage is lost, says so, and nothing else is."""
    children = subprocess.run(["pgrep", "-P", str(running.process.pid)], capture_output=True, text=True).stdout.split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    done = running.wait()
    task.no_bug(done, "a killed worker")
    task.check(done.code == 1, f"a killed worker: {done.said()}")
    lost = [event for event in done.events if event["event"] == "failed"]
    task.check(bool(lost) and all(event["failure"]["class"] == "lost" for event in lost), f"not `lost`: {lost[:1]}")


def stopped(task: Task, project: Project, running: Running, dice: random.Random) -> None:
    """SIGSTOP for a while, then on: nobody takes a sleeping run for a dead one."""
    running.kill_group(signal.SIGSTOP)
    listed = project.llmflow("runs", "--json")
    task.check('"running"' in listed.out, f"a stopped run counts as dead: {listed.out[:200]}")
    running.kill_group(signal.SIGCONT)
    os.kill(running.process.pid, signal.SIGINT)
    task.check(running.wait(SAVING + 10).code == 130, "does not go on after SIGCONT")


CASES = {
    "sigint": interrupt(signal.SIGINT),
    "sigterm": interrupt(signal.SIGTERM),
    "sigusr1": interrupt(signal.SIGUSR1),
    "group": group,
    "twice": twice,
    "sighup": hung_up,
    "terminal": closed,
    "engine": killed,
    "worker": worker_killed,
    "stopped": stopped,
}


def no_orphans(task: Task, project: Project, name: str, seconds: float = ORPHANED) -> None:
    until = time.monotonic() + seconds
    while (left := processes_of(project.folder)) and time.monotonic() < until:
        time.sleep(0.02)
    task.check(not left, f"{name}: {len(left)} processes outlive the engine by {seconds} s")


def goes_on(task: Task, project: Project) -> None:
    """`resume` goes on from the checkpoint and computes no finished stage again."""
    before = {path.name for path in project.objects("keys")}
    partial = project.home / "store/partial"
    had_checkpoint = partial.is_dir() and any(partial.rglob("SUMS.json"))
    running = project.start("resume", "--json")
    found = running.wait_for(lambda events: any(e["event"] in ("restored", "finished") for e in events), 20)
    task.check(found, "resume does not go on")
    if had_checkpoint:
        restored = running.wait_for(lambda events: any(e["event"] == "restored" for e in events), 10)
        task.check(restored, "there was a checkpoint, and training starts anew")
    os.kill(running.process.pid, signal.SIGTERM)
    done = running.wait(SAVING + 10)
    again = before & {event.get("key") for event in done.events if event["event"] == "finished"}
    task.check(not again, "a committed stage was computed again")
