#!/usr/bin/env python3
"""Kills a run of assistant.yaml inside a commit, inside generation and inside training, and compares every byte.

    llmflow run pipelines/assistant.yaml && python3 tests/kill_assistant.py target/release/llmflow

Run it in the repository, after the pipeline has run there once. Each time it copies the pipelines and the home, forgets one
stage's result, runs, kills the whole process group when that stage is in the middle of its work, and goes on with `run` or
`resume`. The end must be the artifacts and the published files of the run that nobody touched, `report.*` aside. Ends with 1
if anything differs. A quarter of an hour on two cores; needs 4 GiB of disk.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PIPELINE = "pipelines/assistant.yaml"
#: Bytes of the unpacked model: the file is whole, and not yet committed.
MODEL_BYTES = 500_000_000
#: The stage killed, what it is in the middle of, and how the user goes on.
KILLS = [("base", "commit", "run"), ("synthetic", "generation", "resume"), ("sft", "training", "resume")]


def newest(home: Path) -> dict:
    """The newest whole run of the pipeline, as the store keeps it."""
    runs = [json.loads(path.read_text()) for path in home.glob("store/runs/*.json")]
    runs = [run for run in runs if run["pipeline"] == "assistant" and len(run["stages"]) == 20]
    if not runs:
        sys.exit(f"no whole run of {PIPELINE} in {home}: run it first")
    return max(runs, key=lambda run: run["at_ms"])


def published(project: Path) -> dict[str, str]:
    """Digests of what the pipeline publishes, by path."""
    out = project / "pipelines/out"
    files = [out / "assistant.gguf", *sorted(path for path in (out / "model").rglob("*") if path.is_file())]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def wait_for(stage: str, process: subprocess.Popen, home: Path) -> None:
    """Until the stage is in the middle of its work."""
    if stage == "base":
        while process.poll() is None:
            sizes = [path.stat().st_size for path in (home / "store/tmp").rglob("*") if path.is_file()]
            if any(size > MODEL_BYTES for size in sizes):
                return
            time.sleep(0.02)
        return
    checkpoints = 0
    for line in process.stdout:
        event = json.loads(line)
        if event.get("stage") != stage:
            continue
        checkpoints += event["event"] == "checkpoint"
        if checkpoints == 3 or (stage == "synthetic" and event["event"] == "progress" and event.get("done", 0) >= 40):
            time.sleep(2)
            return


def kill_once(binary: Path, project: Path, stage: str, doing: str, again: str) -> bool:
    with tempfile.TemporaryDirectory(dir=project.parent) as folder:
        copy = Path(folder)
        shutil.copytree(project / "pipelines", copy / "pipelines", ignore=shutil.ignore_patterns("out"))
        shutil.copytree(project / ".llmflow", copy / ".llmflow")
        before = newest(copy / ".llmflow")
        (copy / ".llmflow/store/keys" / before["stages"][stage]["key"]).unlink()
        words = [str(binary), "run", PIPELINE, "--json"]
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "cwd": copy}
        process = subprocess.Popen(words, start_new_session=True, **quiet)
        wait_for(stage, process, copy / ".llmflow")
        was_running = process.poll() is None
        if was_running:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        words = [str(binary), "resume", "@", "--json"] if again == "resume" else words
        went_on = subprocess.run(words, **quiet)
        events = [json.loads(line) for line in went_on.stdout.splitlines()]
        started = [event["stage"] for event in events if event["event"] == "started"]
        restored = [event["stage"] for event in events if event["event"] == "restored"]
        after = newest(copy / ".llmflow")
        outputs = lambda run: {name: found["outputs"] for name, found in run["stages"].items()}
        checks = {
            "killed while it ran": was_running,
            f"`{again}` ends well": went_on.returncode == 0,
            "only that stage runs again": started == [stage],
            "it goes on from its checkpoint": restored == ([] if stage == "base" else [stage]),
            "same artifacts": outputs(after) == outputs(before),
            "same published files": published(copy) == published(project),
        }
        for name, holds in checks.items():
            print(f"{'ok  ' if holds else 'FAIL'} {doing} ({stage}): {name}", flush=True)
        return all(checks.values())


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    binary, project = Path(sys.argv[1]).resolve(), Path.cwd()
    return 0 if all([kill_once(binary, project, *kill) for kill in KILLS]) else 1


if __name__ == "__main__":
    sys.exit(main())
