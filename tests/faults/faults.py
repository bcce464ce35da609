#!/usr/bin/env python3
"""Injects faults into runs of a small pipeline and checks that nothing finished is lost, repeated or wrong.

    python3 tests/faults/faults.py --tier quick --binary target/release/llmflow
    python3 tests/faults/faults.py --tier full  --binary target/release/llmflow --only kill --seed 42

One line a fault, its failures below it. Ends with 1 if anything failed or a negative control was not caught: each fault
also has a round made to fail, which shows that the test can. A failure names its round; the same `--seed` and `--only`
replay it. tests/faults/install.sh installs what is needed; README.md says what each fault does.
"""

import argparse
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rounds import BROKE, Skipped, Task, clocked

#: Every fault is a file beside this one, with one function `run`.
FAULTS = [
    "kill", "calls", "race", "damage", "lost", "database", "power", "full", "signals", "clock", "hostile", "paths", "vanish", "signed", "edits", "scale",
]  # fmt: skip
MOST_FAILURES_SHOWN = 8


def commands_of(binary: Path) -> frozenset[str]:
    text = subprocess.run([binary, "--help"], capture_output=True, text=True, check=True).stdout
    return frozenset(re.findall(r"^  ([a-z][a-z-]+)  ", text, re.MULTILINE))


def tell(task: Task, skipped: str | None) -> bool:
    """Prints how a test ended. True if it is well."""
    if skipped:
        print(f"{task.name:<9} skipped: {skipped}", flush=True)
        return True
    print(task.line(), flush=True)
    for failure in task.failures[:MOST_FAILURES_SHOWN]:
        print(f"    FAIL {failure}")
    if len(task.failures) > MOST_FAILURES_SHOWN:
        print(f"    … and {len(task.failures) - MOST_FAILURES_SHOWN} more")
    if task.failures:
        print(f"    again: --only {task.name} --seed {task.seed}; what the rounds left: {task.work}", flush=True)
    return not task.failures and task.control_caught is True


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--tier", choices=["quick", "full"], default="quick")
    words.add_argument("--binary", type=Path, required=True)
    words.add_argument("--only", action="append", choices=FAULTS, metavar="NAME", help=", ".join(FAULTS))
    words.add_argument("--seed", type=int, default=int(time.time()))
    asked = words.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup every child would ignore it
    binary = asked.binary.resolve()
    work = Path(tempfile.mkdtemp(prefix="llmflow-faults-"))
    work.chmod(0o755)
    # A copy that every user may run and that no build replaces meanwhile.
    copy = work / "llmflow"
    shutil.copy(binary, copy)
    copy.chmod(0o755)
    commands = commands_of(copy)
    print(f"tier {asked.tier}, seed {asked.seed}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores", flush=True)
    all_well, began = True, time.monotonic()
    for name in asked.only or FAULTS:
        task = Task(name, copy, asked.tier == "full", asked.seed, work / name, commands)
        task.work.mkdir()
        task.work.chmod(0o755)
        skipped = None
        with clocked(task):
            try:
                importlib.import_module(name).run(task)
            except Skipped as reason:
                skipped = str(reason)
            except Exception as error:  # the other faults are still worth trying
                task.fail(f"{BROKE}: {type(error).__name__}: {error}")
        all_well &= tell(task, skipped)
        if not task.failures:
            shutil.rmtree(task.work, ignore_errors=True)
    if all_well:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{'all well' if all_well else 'FAILED'} after {time.monotonic() - began:.0f} s, seed {asked.seed}")
    return 0 if all_well else 1


if __name__ == "__main__":
    sys.exit(main())
