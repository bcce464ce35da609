"""Runs commands and says what they cost: wall and CPU, medians of runs taken in turn; peak memory in a run of its own."""

import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Cost:
    wall: float  # seconds
    cpu: float  # seconds, of the command and what it waited for
    code: int
    out: str
    err: str


def cost(words: list, folder: Path, env: dict | None = None) -> Cost:
    """Runs a command to its end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LLMFLOW_")}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in words], cwd=folder, env=clean | {"NO_COLOR": "1"} | (env or {}),
            stdin=subprocess.DEVNULL, stdout=out, stderr=err,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Cost(wall, used.ru_utime + used.ru_stime, process.returncode, *texts)


def must(words: list, folder: Path, env: dict | None = None) -> Cost:
    """The same of a command that has to end well."""
    spent = cost(words, folder, env)
    if spent.code != 0:
        said = (spent.err or spent.out).strip()[-600:]
        raise SystemExit(f"{' '.join(map(str, words))} in {folder}: exit {spent.code}\n{said}")
    return spent


def peak_mb(words: list, folder: Path) -> float | None:
    """Peak memory of a command, by GNU time: what `wait4` says of a child begins at the size of the process it came from."""
    if not (gnu := shutil.which("time")):
        return None
    with tempfile.NamedTemporaryFile("r") as said:
        must([gnu, "-f", "%M", "-o", said.name, *words], folder)
        return int(said.read()) / 1024


def seconds_until(words: list, folder: Path, said: str) -> float:
    """From launch until a line of standard output says this; then the command and its group are killed."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in words], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        for line in process.stdout:
            if said in line:
                return time.perf_counter() - began
        raise SystemExit(f"{' '.join(map(str, words))} never said {said}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def median(costs: list[Cost]) -> Cost:
    """The median of each figure; texts are the last one's."""
    middle = lambda of: statistics.median(of(one) for one in costs)
    return Cost(middle(lambda c: c.wall), middle(lambda c: c.cpu), costs[-1].code, costs[-1].out, costs[-1].err)


def in_turn(tools: dict[str, Callable[[], Cost]], repeats: int) -> dict[str, Cost]:
    """Medians of several commands measured turn by turn, so that the machine's noise meets all of them."""
    taken: dict[str, list[Cost]] = {name: [] for name in tools}
    for _ in range(repeats):
        for name, tool in tools.items():
            taken[name].append(tool())
    return {name: median(costs) for name, costs in taken.items()}


def sync_ms(folder: Path, rounds: int = 50) -> float:
    """What one fsync of a small new file costs on the disk of this folder, in milliseconds: the median."""
    taken = []
    for number in range(rounds):
        path = folder / f"sync-{number}"
        with path.open("wb", buffering=0) as file:
            file.write(b"x" * 2000)
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
        path.unlink()
    return statistics.median(taken) * 1000


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"
