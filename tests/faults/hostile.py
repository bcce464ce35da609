"""Pipeline files made to harm: alias bombs, deep nesting, giants - refused within a second - beside an honest large one.

The million mutations are a fuzz target in the engine; here the whole program is given files, and its time and memory are
measured.
"""

import os
import random
import resource
import subprocess
import sys
from pathlib import Path

from project import Project
from rounds import Task

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
from generate import write_pipeline, write_rows  # noqa: E402

SOON, MOST_MB = 1.0, 256
#: An honest file of 10,000 stages of this size takes so long at most, in seconds.
LARGE_BYTES, LARGE_SECONDS = 1_870_000, 5.0


def bomb(levels: int, width: int = 10) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]")
    return "\n".join(f"x-{line}" for line in lines) + "\nname: bomb\nstages:\n  s: { op: data.load, with: { path: a } }\n"


def stages(text: str) -> str:
    return f"name: hostile\nstages:\n{text}\n"


def cycle(count: int) -> str:
    ring = "".join(f"  s{n}: {{ op: data.filter, in: s{(n + 1) % count} }}\n" for n in range(count))
    return stages(ring)


FILES = {
    "alias bomb 10^10": bomb(10),
    "alias bomb 10^30": bomb(30),
    "merge bomb": "x-a: &a {k: v}\n" + "".join(f"x-b{n}: &b{n}\n  <<: *{'a' if n == 0 else f'b{n - 1}'}\n" for n in range(500)) + stages("  s: { op: x }"),
    "100,000 brackets": stages("  s: " + "[" * 100_000),
    "100,000 closed brackets": stages("  s: " + "[" * 100_000 + "]" * 100_000),
    "100,000 braces": stages("  s: " + "{a: " * 100_000),
    "5,000 levels of block": "".join(" " * level + f"k{level}:\n" for level in range(5_000)),
    "a key of 1 MB": stages(f"  {'k' * 1_000_000}: {{ op: data.load }}"),
    "a value of 20 MB": stages(f"  s: {{ op: data.load, with: {{ path: {'v' * 20_000_000} }} }}"),
    "20,000 duplicate keys": stages("  s: { op: data.load, with: { path: a } }\n" * 20_000),
    "100,000 anchors": "".join(f"x-{n}: &a{n} 1\n" for n in range(100_000)) + stages("  s: { op: x }"),
    "a cycle of 10,000": cycle(10_000),
    "itself as alias": "x-a: &a [*a]\n" + stages("  s: { op: x }"),
    "NUL": stages("  s: { op: data.load, with: { path: 'a\0b' } }"),
    "byte order mark": "\ufeff" + stages("  s: { op: x }"),
    "tabs": "name: t\nstages:\n\ts:\n\t\top: data.load\n",
    "empty": "",
    "a scalar": "42",
    "two documents": stages("  s: { op: x }") + "---\n" + stages("  s: { op: x }"),
    "400 digits": f"name: n\nseed: {'9' * 400}\nstages:\n  s: {{ op: data.load, with: {{ path: a, max_rows: {'9' * 400} }} }}\n",
    "a long expression": stages("  s: { op: data.load, with: { path: a }, require: ['" + "(" * 50_000 + "1" + ")" * 50_000 + "'] }"),
    "a matrix of 10^12": stages(
        "  s:\n    op: data.load\n    with: { path: a }\n    matrix:\n"
        + "".join(f"      k{n}: [{', '.join(map(str, range(100)))}]\n" for n in range(6))
    ),
    "a reference to itself": 'name: n\nparams: { a: "${params.a}" }\nstages:\n  s: { op: data.load, with: { path: "${params.a}" } }\n',
    "invalid UTF-8": b"name: \xff\xfe\nstages: {}\n",
}  # fmt: skip


def check(project: Project, name: str) -> tuple[int, float, float, str]:
    """`llmflow check`: exit code, CPU seconds (the machine may be busy), peak MB, what it said."""
    err = project.folder / "logs/check.err"
    with err.open("wb") as to_err:
        process = subprocess.Popen(
            [project.binary, "check", name], cwd=project.folder, env=project.environment(),
            stdout=subprocess.DEVNULL, stderr=to_err, preexec_fn=limit,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, err.read_text(errors="replace")


def limit() -> None:
    """A file that would take the machine down takes down its reader only."""
    resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))


def run(task: Task) -> None:
    project = task.project("files")
    for label, text in FILES.items():
        with task.round(label):
            refused(task, project, text)
    for number in range(task.of(200, 5000)):
        with task.round(f"mutated-{number}") as dice:
            mutated(task, project, dice)
    with task.round("an honest file of 10,000 stages"):
        write_rows(project.folder, 100)
        path = write_pipeline(project.folder, "layered", 10_000)
        text = path.read_text()
        path.write_text(text + "# " + "x" * max(0, LARGE_BYTES - len(text) - 3) + "\n")
        code, seconds, mb, said = check(project, path.name)
        task.check(code == 0, f"exit {code}: {said[:300]}")
        task.check(seconds <= LARGE_SECONDS, f"took {seconds:.2f} s")
        task.notes.append(f"10,000 stages, 1.87 MB: checked in {seconds * 1000:.0f} ms, {mb:.0f} MB")
    # A small bomb is no bomb: what is refused is the size, and a round that expects a refusal sees it accepted.
    with task.control():
        (project.folder / "data/a.jsonl").write_text('{"text": "x"}\n')
        refused(task, project, bomb(2).replace("path: a", "path: data/a.jsonl"))


def refused(task: Task, project: Project, text: str | bytes) -> None:
    (project.folder / "hostile.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    code, seconds, mb, said = check(project, "hostile.yaml")
    task.check(code == 2, f"exit {code}, not 2: {said[:300]}")
    task.check("panicked" not in said, f"a panic: {said[:300]}")
    task.check(code != 2 or "error" in said, f"no error is named: {said[:200]}")
    task.check(seconds <= SOON, f"took {seconds:.2f} s")
    task.check(mb <= MOST_MB, f"took {mb:.0f} MB")


def mutated(task: Task, project: Project, dice: random.Random) -> None:
    """A sound file with a few bytes changed: any answer but a panic, a crash or a long wait."""
    data = bytearray((project.folder / "small.yaml").read_bytes())
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(data))
        match dice.randrange(4):
            case 0:
                data[at] ^= 1 << dice.randrange(8)
            case 1:
                del data[at : at + dice.randint(1, 40)]
            case 2:
                data[at:at] = dice.choice([b"&a ", b"*a ", b"<<: ", b"${", b"}", b"[", b": ", b"\n", b"- ", b"!!", b"|\n", b"\t"])
            case _:
                end = dice.randrange(at, min(len(data), at + 200))
                data[at:at] = data[at:end]
    (project.folder / "mutated.yaml").write_bytes(data)
    code, seconds, _, said = check(project, "mutated.yaml")
    well = code in (0, 2, 3) and seconds <= SOON and "panicked" not in said
    task.check(well, f"exit {code} after {seconds:.2f} s: {said[:200]}; the file: {project.folder}/mutated.yaml")
    if not well:
        (project.folder / f"mutated-{task.count}.yaml").write_bytes(data)
