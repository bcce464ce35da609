#!/usr/bin/env python3
"""Measures LLMflow at sizes from 100 to 100,000 stages beside ninja, Snakemake and DVC, in one run on one machine.

    tests/bench/peers.sh
    python3 tests/bench/bench.py --binary target/release/llmflow [--json figures.json] [--only noop] [--large]

Medians of five, tools in turn. Prints a table with the target of each figure and `ok` or `MISS`; the load average stands
beside every section, for other work on the machine spoils figures. `--large` adds 100,000 stages, DVC at 200, and a million
stages planned from a matrix. Without the peers it measures LLMflow alone.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import generate
from measure import Cost, cost, in_turn, load, must, peak_mb, seconds_until, sync_ms

PEERS = Path(os.environ.get("LLMFLOW_BENCH_PEERS", Path.home() / ".cache/llmflow-bench-peers")) / "bin"
SECTIONS = ["noop", "edit", "overhead", "start", "hash", "explain", "matrix"]
SYNCS = ["fsync", "fdatasync", "sync_file_range", "syncfs"]
#: Largest graph a peer is asked for: more takes minutes.
MOST = {"ninja": 100_000, "snakemake": 10_000, "dvc": 200}
NOOP_TARGETS = {1_000: (0.010, None), 10_000: (0.050, 32), 100_000: (0.600, 120)}  # seconds, MB


@dataclass
class Bench:
    binary: Path
    work: Path
    repeats: int
    is_large: bool
    jobs: list[str]
    figures: list[dict] = field(default_factory=list)

    def tell(self, name: str, value: float, unit: str, most: float | None = None, least: float | None = None, note: str = "") -> None:
        """One figure of the table."""
        is_met = (most is None or value <= most) and (least is None or value >= least)
        target = f"≤ {most:g}" if most is not None else f"≥ {least:g}" if least is not None else ""
        verdict = "" if not target else "ok" if is_met else "MISS"
        self.figures.append({"name": name, "value": value, "unit": unit, "target": target, "verdict": verdict, "note": note})
        print(f"  {name:<46} {value:>10,.2f} {unit:<5} {target:>9} {verdict:<4} {note}", flush=True)

    def tell_peak(self, name: str, words: list, folder: Path, most: float | None) -> None:
        peak = peak_mb(words, folder)
        if peak is None:
            print(f"  {name:<46} not measured: GNU time is missing (Debian package `time`)")
        else:
            self.tell(name, peak, "MB", most)

    def graph(self, shape: str, count: int) -> Path:
        """A folder with this graph, run to its end once by LLMflow."""
        folder = self.work / f"{shape}-{count}"
        if not folder.exists():
            generate.write(folder, shape, count)
            self.first_run(folder)
        return folder

    def first_run(self, folder: Path, home: Path | None = None, jobs: bool = False) -> Cost:
        words = ["--home", home] if home else []
        return must([self.binary, "run", "pipeline.yaml", "--json", *(self.jobs if jobs else []), *words], folder)


def section(title: str) -> None:
    print(f"\n{title} ({load()})", flush=True)


def noop(bench: Bench) -> None:
    section("nothing to do")
    by_count = {}
    for count in [100, 1_000, 10_000] + ([100_000] if bench.is_large else []):
        folder = bench.graph("layered", count)
        tools = {"llmflow": lambda: nothing_ran(bench, folder)}
        tools |= {name: tool for name, tool in peers(bench, folder, count).items()}
        costs = in_turn(tools, bench.repeats if count < 100_000 else 3)
        by_count[count] = costs["llmflow"]
        wall, mb = NOOP_TARGETS.get(count, (None, None))
        for name, spent in costs.items():
            ours = name == "llmflow"
            ratio = "" if ours else f"{spent.wall / costs['llmflow'].wall:.2f} × llmflow"
            note = f"cpu {spent.cpu * 1000:,.1f} ms  {ratio}"
            bench.tell(f"{count:,} stages, {name}", spent.wall * 1000, "ms", wall * 1000 if ours and wall else None, note=note)
        if mb:
            bench.tell_peak(f"{count:,} stages, llmflow, memory", [bench.binary, "run", "pipeline.yaml"], folder, mb)


def nothing_ran(bench: Bench, folder: Path) -> Cost:
    spent = must([bench.binary, "run", "pipeline.yaml"], folder)
    if " ran" in spent.err or "nothing to do" not in spent.err + spent.out:
        raise SystemExit(f"something ran where nothing was to do: {spent.err[-300:]}")
    return spent


def peers(bench: Bench, folder: Path, count: int) -> dict:
    """The peers that are installed and take this size, each with its graph made once."""
    tools = {}
    if count <= MOST["ninja"] and (PEERS / "ninja").exists():
        must([PEERS / "ninja", "--quiet", "-j2"], folder)
        tools["ninja"] = lambda: must([PEERS / "ninja", "--quiet"], folder)
    if count <= MOST["snakemake"] and (PEERS / "snakemake").exists():
        # What ninja made is up to date for Snakemake too: it goes by time.
        words = [PEERS / "snakemake", "--cores", "2", "--quiet", "all", "--rerun-triggers", "mtime"]
        tools["snakemake"] = lambda: must(words, folder)
    if count <= (MOST["dvc"] if bench.is_large else 100) and (PEERS / "dvc").exists():
        apart = bench.work / f"dvc-{count}"
        if not apart.exists():
            (apart / "out").mkdir(parents=True)
            shutil.copy(folder / "dvc.yaml", apart)
            must([PEERS / "dvc", "init", "--no-scm", "--quiet"], apart)
            must([PEERS / "dvc", "repro", "--quiet"], apart)
        tools["dvc"] = lambda: must([PEERS / "dvc", "repro", "--quiet"], apart)
    return tools


def edit(bench: Bench) -> None:
    section("one param of the file changed, then `plan`")
    for count in [1_000, 10_000]:
        folder = bench.graph("layered", count)
        pipeline = folder / "pipeline.yaml"
        before = pipeline.read_text()
        last = iter(range(count - 1, 0, -1))

        def edited() -> Cost:
            generate.write_pipeline(folder, "layered", count, edit=next(last))
            return must([bench.binary, "plan", "pipeline.yaml"], folder)

        costs = in_turn({"plan": edited, "check": lambda: must([bench.binary, "check", "pipeline.yaml"], folder)}, bench.repeats)
        pipeline.write_text(before)
        plan, check = costs["plan"], costs["check"]
        note = f"cpu {plan.cpu * 1000:,.0f} ms; `check` {check.wall * 1000:,.0f} ms"
        bench.tell(f"{count:,} stages, edited", plan.wall * 1000, "ms", note=note)
        bench.tell(f"{count:,} stages, edited, against `check`", plan.wall / check.wall, "×", 2)


def overhead(bench: Bench) -> None:
    section("overhead of a stage: independent stages at -j2, the operator's own time taken off")
    ram = Path("/dev/shm/llmflow-bench")
    by_count = {}
    for count in [100, 1_000, 10_000]:
        folder = bench.work / f"independent-{count}"
        generate.write(folder, "independent", count)
        for disk, home in [("disk", folder / ".llmflow"), ("memory", ram / str(count))]:
            taken = []
            for _ in range(3 if count <= 1_000 else 1):
                shutil.rmtree(home, ignore_errors=True)
                spent = bench.first_run(folder, home, jobs=True)
                own = operator_seconds(spent.out)
                taken.append(((spent.wall - sum(own) / 2) / count * 1000, spent, own))
            ms, spent, own = sorted(taken, key=lambda one: one[0])[len(taken) // 2]
            by_count[count, disk] = ms
            note = f"wall {spent.wall:.2f} s, operators {sum(own):.2f} s on two workers, cpu {spent.cpu / count * 1000:.2f} ms a stage"
            most = 2.0 if (count, disk) == (1_000, "memory") else None
            bench.tell(f"{count:,} stages, home on {disk}", ms, "ms", most, note=note)
            shutil.rmtree(ram, ignore_errors=True)
        if count == 1_000:
            syncs_of(bench, folder, count)
    bench.tell("10,000 against 100, home in memory", by_count[10_000, "memory"] / by_count[100, "memory"], "×", 1.2)
    for name, words in [("ninja", ["--quiet", "-j2"]), ("snakemake", ["--cores", "2", "--quiet", "all"])]:
        if (PEERS / name).exists():
            shutil.rmtree(bench.work / "independent-1000/out")
            (bench.work / "independent-1000/out").mkdir()
            spent = must([PEERS / name, *words], bench.work / "independent-1000")
            bench.tell(f"1,000 stages, {name} (`echo`, nothing durable)", spent.wall, "ms")


def operator_seconds(out: str) -> list[float]:
    events = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return [event["seconds"] for event in events if event.get("event") == "finished"]


def syncs_of(bench: Bench, folder: Path, count: int) -> None:
    """Counts the waits for the device, in a run of its own; measures what one costs."""
    if not shutil.which("strace"):
        return
    home, seen = folder / ".counted", folder / "strace.txt"
    shutil.rmtree(home, ignore_errors=True)
    calls = ",".join([*SYNCS, "clone", "clone3", "fork", "vfork"])
    words = ["strace", "-f", "--seccomp-bpf", "-qq", "-ttt", "-T", "-o", seen, "-e", f"trace={calls}"]
    must([*words, bench.binary, "run", "pipeline.yaml", "--json", *bench.jobs, "--home", home], folder)
    spans = sync_spans(seen.read_text())
    total = sum(len(of_process) for of_process in spans.values())
    note = f"{total / count:.1f} calls in them; one fsync here takes {sync_ms(folder):.2f} ms"
    bench.tell("sync waits a stage", sum(map(waits, spans.values())) / count, "", 3, note=note)


def sync_spans(trace: str) -> dict[str, list[tuple[float, float]]]:
    """Begin and end of every sync, by the process that waited: threads belong to who started them."""
    owner: dict[str, str] = {}
    spans: dict[str, list[tuple[float, float]]] = {}
    begun: dict[str, float] = {}
    cloning: set[str] = set()  # threads whose call to start another has not come back
    for line in trace.splitlines():
        thread, moment, call = line.split(maxsplit=2)
        process = owner.setdefault(thread, thread)
        if started := re.search(r"(?:clone3?|v?fork)\b.* = (\d+)", call):
            owner[started[1]] = process if "CLONE_THREAD" in call or thread in cloning else started[1]
            cloning.discard(thread)
        elif "clone" in call and "CLONE_THREAD" in call:
            cloning.add(thread)  # its number comes with the second half of the line
        elif call.startswith(tuple(SYNCS)) and "unfinished" in call:
            begun[thread] = float(moment)
        elif any(f"{name}(" in call or f"{name} resumed" in call for name in SYNCS) and (took := re.search(r"<([\d.]+)>$", call)):
            since = begun.pop(thread, None)
            since = float(moment) if since is None else since
            spans.setdefault(process, []).append((since, since + float(took[1])))
    return spans


def waits(spans: list[tuple[float, float]]) -> int:
    """How often somebody waited: syncs that are under way together are one wait."""
    number, until = 0, 0.0
    for begin, end in sorted(spans):
        number += begin > until
        until = max(until, end)
    return number


def start(bench: Bench) -> None:
    section("start")
    folder = bench.work / "start-1000"
    generate.write(folder, "layered", 1_000)
    ram = Path("/dev/shm/llmflow-bench-start")
    for disk, homes in [("disk", folder), ("memory", ram)]:
        taken = []
        for number in range(bench.repeats):
            os.sync()  # what the killed run before it left to be written is not this one's to wait for
            words = [bench.binary, "run", "pipeline.yaml", "--json", "--home", homes / f".home-{number}"]
            taken.append(seconds_until(words, folder, '"event":"started"') * 1000)
        bench.tell(f"first stage of 1,000 starts, new home on {disk}", statistics.median(taken), "ms", 100)
    shutil.rmtree(ram, ignore_errors=True)
    helped = in_turn({"help": lambda: must([bench.binary, "--help"], folder)}, 21)["help"]
    bench.tell("--help", helped.wall * 1000, "ms", 5)
    floor = in_turn({"true": lambda: must(["/bin/true"], folder)}, 21)["true"]
    bench.tell("/bin/true, for comparison", floor.wall * 1000, "ms")


def hashing(bench: Bench) -> None:
    section("hashing a source of 2 GiB from the page cache")
    folder = bench.work / "hash"
    (folder / ".git").mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.yaml").write_text("name: h\nstages:\n  s: { op: data.load, with: { path: big.txt, format: text } }\n")
    size = 2 << 30
    block = os.urandom(1 << 24)

    def write(bytes_: int) -> None:
        with (folder / "big.txt").open("wb") as file:
            for _ in range(bytes_ // len(block) or 1):
                file.write(block[:bytes_])

    def planned(before: list[str], fresh: bool = True) -> Cost:
        if fresh:
            shutil.rmtree(folder / ".llmflow", ignore_errors=True)
        return cost([*before, bench.binary, "plan", "pipeline.yaml"], folder)

    write(100)
    small = in_turn({"small": lambda: planned([])}, bench.repeats)["small"].wall
    write(size)
    costs = in_turn({"one": lambda: planned(["taskset", "-c", "0"]), "two": lambda: planned([])}, 3)
    again = in_turn({"again": lambda: planned([], fresh=False)}, bench.repeats)["again"].wall
    for cores, least in [("one", 2.5), ("two", 5.0)]:
        bench.tell(f"{cores} core{'s' if cores == 'two' else ''}", size / (costs[cores].wall - small) / 1e9, "GB/s", least=least)
    bench.tell("the same file again, unchanged", again * 1000, "ms", small * 1000 + 20, note=f"an empty file: {small * 1000:.1f} ms")
    (folder / "big.txt").unlink()


def explain(bench: Bench) -> None:
    section("explain")
    for count in [1_000, 10_000]:
        folder = bench.graph("layered", count)
        for what, stage in [("the last", count - 1), ("one that many follow", count // 20)]:
            spent = in_turn({"explain": lambda: must([bench.binary, "explain", f"@/s{stage}"], folder)}, bench.repeats)["explain"]
            bench.tell(f"explain {what} of {count:,}", spent.wall * 1000, "ms", 20)


def matrix(bench: Bench) -> None:
    section("planned from a matrix")
    for count in [10_000] + ([1_000_000] if bench.is_large else []):
        folder = bench.work / f"matrix-{count}"
        generate.write(folder, "matrix", count)
        spent = cost([bench.binary, "plan", "pipeline.yaml"], folder)
        if spent.code != 0:
            print(f"  skipped: {spent.err.strip().splitlines()[0] if spent.err else spent.code}")
            return
        is_million = count == 1_000_000
        bench.tell(f"{count:,} stages", spent.wall, "s", 10 if is_million else None)
        bench.tell_peak(f"{count:,} stages, memory", [bench.binary, "plan", "pipeline.yaml"], folder, 1200 if is_million else None)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--binary", type=Path, required=True)
    words.add_argument("--json", type=Path, help="writes the figures there")
    words.add_argument("--only", action="append", choices=SECTIONS)
    words.add_argument("--large", action="store_true")
    words.add_argument("--repeats", type=int, default=5)
    asked = words.parse_args()
    binary = asked.binary.resolve()
    has_jobs = "--jobs" in cost([binary, "run", "--help"], Path.cwd()).out
    with tempfile.TemporaryDirectory(prefix="llmflow-bench-") as folder:
        bench = Bench(binary, Path(folder), asked.repeats, asked.large, ["--jobs", "2"] if has_jobs else [])
        version = must([binary, "--version"], Path.cwd()).out.strip()
        machine = f"{os.cpu_count()} cores, {platform.release()}"
        print(f"{version} · {machine} · {load()} · an fsync takes {sync_ms(bench.work):.2f} ms")
        run = {"noop": noop, "edit": edit, "overhead": overhead, "start": start, "hash": hashing, "explain": explain, "matrix": matrix}
        for name in asked.only or SECTIONS:
            run[name](bench)
        missed = [figure["name"] for figure in bench.figures if figure["verdict"] == "MISS"]
        print(f"\n{len(missed)} of {sum(bool(figure['target']) for figure in bench.figures)} targets missed ({load()})")
        if asked.json:
            figures = {"version": version, "machine": machine, "at": time.strftime("%F %T"), "figures": bench.figures}
            asked.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
