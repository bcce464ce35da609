#!/usr/bin/env python3
"""What LLMflow promises of GPUs, tried on a real one: needs an NVIDIA driver, nvidia-smi and a python3 with PyTorch.

    python3 tests/gpu/gpu.py --binary target/release/llmflow

A line a promise, with what was seen; ends with 1 if one does not hold. Looks at the first GPU; leaves its settings alone.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS = HERE.parents[1] / "pipelines/data/tiny/instructions.jsonl"
#: A process that keeps memory to itself until its standard input ends.
HOLDER = "import sys, torch; held = torch.empty(int(sys.argv[1]), dtype=torch.uint8, device='cuda'); print('held', flush=True); sys.stdin.read()"
GIB = 1 << 30

PIPELINE = """
name: gpu
seed: 7
params: {{ steps: {steps} }}
stages:
  rows: {{ op: data.load, with: {{ path: instructions.jsonl, format: alpaca, on_bad_row: set_aside }} }}
  train:
    op: run.command
    in: {{ data: rows }}
    matrix: {{ lr: [0.0003, 0.001, 0.003] }}
    resources: {{ gpus: 1 }}
    with:
      command: [python3, train.py, "--data={{in.data}}", "--out={{out.model}}", "--notes={{out.notes}}",
                "--steps=${{params.steps}}", "--lr=${{matrix.lr}}", "--seed={{seed}}"]
      files: [train.py]
      outputs: {{ model: model, notes: files }}
      metrics: [loss]
  beside:
    op: run.command
    matrix: {{ n: [1, 2] }}
    with:
      command: [python3, beside.py, "{{out.said}}", "${{matrix.n}}"]
      files: [beside.py]
      outputs: {{ said: files }}
  recovers:
    op: run.command
    resources: {{ gpus: 1 }}
    retry: {{ attempts: 2, on: [transient] }}
    with:
      command: [python3, fault.py, "{flag}", "{{out.sum}}"]
      files: [fault.py]
      outputs: {{ sum: files }}
publish:
  "train@lr=0.0003.notes": out/notes/a
  "train@lr=0.001.notes": out/notes/b
  "train@lr=0.003.notes": out/notes/c
  "beside@n=1": out/said/1
  "beside@n=2": out/said/2
"""
PLAIN = """
name: plain
stages:
  rows: { op: data.load, with: { path: instructions.jsonl, format: alpaca, on_bad_row: set_aside } }
"""
BESIDE = """
import os, pathlib, sys, torch
pathlib.Path(sys.argv[1], "said.txt").write_text(f"{os.environ['CUDA_VISIBLE_DEVICES']!r} {torch.cuda.is_available()}")
"""


class Check:
    """Promises, and whether they held."""

    def __init__(self, binary: Path, work: Path):
        self.binary, self.work, self.failed = binary, work, 0

    def that(self, promise: str, holds: bool, seen: object = "") -> None:
        self.failed += not holds
        print(f"{'ok    ' if holds else 'FAILED'} {promise}: {seen}", flush=True)

    def llmflow(self, *words: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, **variables}
        return subprocess.run([self.binary, *words], cwd=self.work, env=environment, capture_output=True, text=True, timeout=300)

    def gpus(self, **variables: str) -> list[dict]:
        return json.loads(self.llmflow("devices", "--json", **variables).stdout)["gpus"]

    def lay_out(self, steps: int) -> None:
        self.work.joinpath("gpu.yaml").write_text(PIPELINE.format(steps=steps, flag=self.work / "flag"))
        for file in (ROWS, HERE / "train.py", HERE / "fault.py"):
            shutil.copy(file, self.work)
        self.work.joinpath("beside.py").write_text(BESIDE)
        self.work.joinpath("plain.yaml").write_text(PLAIN)


def smi(fields: str, of: str = "gpu") -> list[list[str]]:
    words = ["nvidia-smi", f"--query-{of}={fields}", "--format=csv,noheader,nounits"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()]


def inventory(check: Check) -> None:
    (name, mebibytes, uuid, capability), found = smi("name,memory.total,uuid,compute_cap")[0], check.gpus()
    told = found[0] if found else {}
    is_same = (told.get("name"), told.get("capability")) == (name, capability)
    check.that("the GPU is called as its driver calls it", is_same, told)
    off = abs(told.get("memory_bytes", 0) / (int(mebibytes) << 20) - 1)
    check.that("its memory is what nvidia-smi says, within 3 % (the driver keeps some)", off < 0.03, f"{off:.2%} off")
    for value in ("0", uuid):
        ids = [gpu["id"] for gpu in check.gpus(CUDA_VISIBLE_DEVICES=value)]
        check.that(f"CUDA_VISIBLE_DEVICES={value} is heeded, and kept as its name", ids == [value], ids)
    for value in ("", "99", "-1", "GPU-00000000-0000-0000-0000-000000000000"):
        check.that(f"CUDA_VISIBLE_DEVICES={value!r} leaves none", check.gpus(CUDA_VISIBLE_DEVICES=value) == [])
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(20 * GIB)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        less = told["free_bytes"] - check.gpus()[0]["free_bytes"]
        holder.stdin.close()
    check.that("what another process holds is not free", 20 * GIB <= less < 22 * GIB, f"{less / GIB:.1f} GiB less")
    for screen in ("devices", "doctor"):
        done = check.llmflow(screen)
        print(done.stdout, done.stderr, sep="")
    hidden = check.llmflow("doctor", CUDA_VISIBLE_DEVICES="")
    row = [line for line in hidden.stdout.splitlines() if "gpu" in line.lower() or "CUDA_VISIBLE" in line]
    check.that("doctor tells a driver that gives no GPU, with the fix", hidden.returncode == 3, row)


def times(check: Check) -> None:
    def median(words: list[str], **variables: str) -> float:
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            check.llmflow(*words, **variables)
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    plain = {"LLMFLOW_FAKE_GPUS": "1x80GiB"}
    print(check.llmflow("plan", "plain.yaml").stdout)
    print(f"       `devices` takes {median(['devices']):.3f} s, with no GPU visible {median(['devices'], CUDA_VISIBLE_DEVICES=''):.3f} s")
    print(f"       `plan` takes {median(['plan', 'gpu.yaml']):.3f} s, with fake GPUs {median(['plan', 'gpu.yaml'], **plain):.3f} s")
    asked, fake = median(["plan", "plain.yaml"]), median(["plan", "plain.yaml"], **plain)
    check.that("where no stage asks for a GPU nobody waits for its driver", asked < fake + 0.05, f"`plan` takes {asked:.3f} s, with fake GPUs {fake:.3f} s")


def programs(check: Check) -> None:
    plan = check.llmflow("plan", "gpu.yaml")
    print(plan.stdout, plan.stderr, sep="")
    refused = check.llmflow("plan", "gpu.yaml", CUDA_VISIBLE_DEVICES="")
    check.that("a demand that cannot be met is refused before anything runs", refused.returncode == 3, refused.stderr.strip())
    done = check.llmflow("run", "gpu.yaml", "--jobs", "4")
    print(done.stdout, done.stderr, sep="")
    check.that("programs that ask for a GPU run on it, beside others", done.returncode == 0, f"exit {done.returncode}")
    notes = [json.loads(file.read_text()) for file in check.work.glob("out/notes/*/*.json")]
    said = [file.read_text() for file in check.work.glob("out/said/*/*.txt")]
    held = sorted((note["began"], note["ended"]) for note in notes)
    apart = all(before[1] <= after[0] for before, after in zip(held, held[1:]))
    check.that("one GPU is one program's at a time", len(held) == 3 and apart, notes)
    check.that("a program that did not ask sees none", said == ["'' False"] * 2, said)
    attempts = json.loads(check.llmflow("show", "@/recovers", "--json").stdout)
    print(check.llmflow("show", "@/recovers").stdout)
    check.that("a fault of the GPU takes one attempt", len(attempts["each_attempt"]) == 2, "")
    check.that("its record says on which GPU it was made", smi("name")[0][0] in str(attempts["machine"]), attempts["machine"])
    again = check.llmflow("run", "gpu.yaml")
    check.that("nothing is left to do", "nothing to do" in again.stderr and again.returncode == 0, again.stderr.strip())


def damaged(check: Check) -> None:
    """A run that has nothing to do finds that it has: nobody has asked the driver until then."""
    shutil.rmtree(check.work / "out/notes/a")
    for blob in check.work.glob(".llmflow/store/blobs/*/*"):
        data = blob.read_bytes()
        if data.startswith(b'{"began"'):
            blob.chmod(0o644)
            blob.write_bytes(b"[" + data[1:])
    done = check.llmflow("run", "gpu.yaml")
    print(done.stdout, done.stderr, sep="")
    remade = (check.work / "out/notes/a/notes.json").exists()
    check.that("a damaged result is made again on the GPU", done.returncode == 0 and remade, f"exit {done.returncode}")


def killed(check: Check) -> None:
    words = [check.binary, "run", "gpu.yaml", "--set", "steps=1200"]
    run = subprocess.Popen(words, cwd=check.work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 60
    while not smi("pid", "compute-apps") and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(4)
    running = len(smi("pid", "compute-apps"))
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    began = time.monotonic()
    while smi("pid", "compute-apps") and time.monotonic() < began + 30:
        time.sleep(0.1)
    freed = time.monotonic() - began
    check.that("killed with -9, the engine leaves no program on the GPU", running >= 1 and freed < 10, f"{running} ran, gone after {freed:.1f} s")
    resumed = check.llmflow("resume")
    print(resumed.stdout, resumed.stderr, sep="")
    check.that("it is gone on with", resumed.returncode == 0, f"exit {resumed.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmflow-gpu-") as work:
        check = Check(arguments.binary.resolve(), Path(work))
        check.lay_out(steps=400)
        for part in (inventory, times, programs, damaged, killed):
            part(check)
    print(f"{check.failed} failed")
    raise SystemExit(check.failed > 0)


main()
