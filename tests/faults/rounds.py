"""How a fault test is counted and told: rounds, failures with the seed that replays them, the negative control."""

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from project import Done, Project, Reference, reference


#: How a failure of the test itself is told apart from one of the program.
BROKE = "the test itself broke"


class Skipped(Exception):
    """This fault cannot be tried here; says why."""


@dataclass
class Task:
    """What one fault test is given."""

    name: str
    binary: Path
    is_full: bool
    seed: int
    work: Path
    #: The words `llmflow --help` lists as commands.
    commands: frozenset[str]
    count: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    control_caught: bool | None = None
    seconds: float = 0.0
    _label: str = ""
    _reference: Reference | None = None

    def of(self, quick: int, full: int) -> int:
        """How many rounds this tier has."""
        return full if self.is_full else quick

    def has(self, command: str) -> bool:
        return command in self.commands

    def needs(self, command: str) -> None:
        if not self.has(command):
            raise Skipped(f"`llmflow {command}` is not there yet")

    def project(self, name: str, **how) -> Project:
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        return Project(self.binary, folder, **how)

    def reference(self) -> Reference:
        """What the undisturbed run of the small pipeline gives; made once a test."""
        if self._reference is None:
            self._reference = reference(self.project("reference"))
        return self._reference

    @contextmanager
    def round(self, label: str) -> Iterator[random.Random]:
        """One round, with random numbers of its own: the same seed and label give the same round."""
        self.count += 1
        self._label = label
        failures = len(self.failures)
        try:
            yield random.Random(f"{self.seed}/{self.name}/{label}")
        except Exception as error:  # a broken round is a failed one; the others go on
            self.fail(f"{BROKE}: {type(error).__name__}: {error}")
        if len(self.failures) == failures:
            shutil.rmtree(self.work / label, ignore_errors=True)

    def fail(self, what: str) -> None:
        self.failures.append(f"{self._label}: {what}")

    def check(self, holds: bool, what: str) -> bool:
        if not holds:
            self.fail(what)
        return bool(holds)

    def no_bug(self, done: Done, doing: str) -> None:
        """No panic, no hang, nothing said that only we could understand."""
        bad = [word for word in ("panicked at", "RUST_BACKTRACE", "database is locked") if word in done.err + done.out]
        self.check(not bad and done.code != 101, f"{doing}: {bad or 'a bug'}, {done.said()}")
        self.check("killed: still running" not in done.err, f"{doing}: hangs, {done.said()}")

    def same(self, project: Project, reference: Reference) -> None:
        for difference in reference.differences(project):
            self.fail(difference)

    @contextmanager
    def control(self, label: str = "control") -> Iterator[random.Random]:
        """A round that must fail: what it finds shows that the test can find it, and counts for nothing else."""
        before, count = list(self.failures), self.count
        with self.round(label) as dice:
            yield dice
        found = self.failures[len(before) :]
        is_found = bool(found) and not any(BROKE in failure for failure in found)
        self.failures, self.count = before, count
        self.caught(is_found)
        shutil.rmtree(self.work / label, ignore_errors=True)

    def caught(self, holds: bool) -> None:
        """Says directly whether a negative control was caught."""
        self.control_caught = bool(holds) and self.control_caught is not False

    def line(self) -> str:
        control = {None: "no negative control", True: "negative control caught", False: "NEGATIVE CONTROL NOT CAUGHT"}
        notes = f"; {', '.join(self.notes)}" if self.notes else ""
        return (
            f"{self.name:<9} {self.count:>4} rounds, {len(self.failures)} failures ({control[self.control_caught]}), "
            f"{self.seconds:.0f} s{notes}"
        )


@contextmanager
def clocked(task: Task) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        task.seconds = time.monotonic() - began
