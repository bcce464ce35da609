"""Every stored object damaged in turn: found out before it is used, and made anew.

So that each is used, the run that follows has probes: stages behind every output, with a param that no earlier run had.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

from project import Done, Project, sha256
from rounds import Task

#: Of the small pipeline, with a reader behind every output. A new `nonce` makes every reader run.
PROBES = """
  probe_{name}:
    op: {op}
    in: {source}
    with: {{ {with_} }}
"""
READERS = [
    ("corpus", "data.filter", "corpus", 'max_words: "${params.nonce}"'),
    ("rows", "data.filter", "rows", 'max_words: "${params.nonce}"'),
    ("clean", "data.filter", "clean", 'max_words: "${params.nonce}"'),
    ("unique", "data.filter", "unique", 'max_words: "${params.nonce}"'),
    ("train", "data.filter", "split.train", 'max_words: "${params.nonce}"'),
    ("test", "data.filter", "split.test", 'max_words: "${params.nonce}"'),
    (
        "tokenizer",
        "train.pretrain",
        "{ tokenizer: tokenizer, data: corpus }",
        'hidden_size: 32, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 1, '
        'max_length: 16, max_steps: 1, per_device_train_batch_size: 1, save_steps: "${params.nonce}"',
    ),
    ("base", "eval.perplexity", "{ model: base, data: corpus }", 'window: 64, max_windows: "${params.nonce}"'),
]
FIRST_NONCE = 100_000


def flip(path: Path, dice: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, dice: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: dice.randrange(1, max(2, path.stat().st_size))])


def extend(path: Path, dice: random.Random) -> None:
    path.write_bytes(path.read_bytes() + dice.randbytes(dice.randint(1, 4096)))


def empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def zero_page(path: Path, dice: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = dice.randrange(len(data))
    data[start : start + 4096] = bytes(len(data[start : start + 4096]))
    path.write_bytes(data)


def swap(path: Path, dice: random.Random) -> None:
    """The bytes of another object of its kind: whole, and of another content."""
    kind = next(parent for parent in path.parents if parent.name in ("blobs", "artifacts", "keys"))
    others = [other for other in sorted(kind.rglob("*")) if other.is_file() and other != path]
    path.write_bytes(dice.choice(others).read_bytes())


DAMAGES: list[Callable[[Path, random.Random], None]] = [flip, truncate, extend, empty, swap, zero_page]


def probed(project: Project) -> None:
    """Puts a reader behind every output of the small pipeline."""
    text = (project.folder / "small.yaml").read_text()
    probes = "".join(PROBES.format(name=name, op=op, source=source, with_=with_) for name, op, source, with_ in READERS)
    text = text.replace("params:\n", f"params:\n  nonce: {FIRST_NONCE}\n").replace("\npublish:", probes + "\npublish:")
    (project.folder / "small.yaml").write_text(text)


def run_probed(project: Project, nonce: int) -> Done:
    return project.llmflow("run", "small.yaml", "--json", "--set", f"nonce={nonce}")


def result_in(record: bytes) -> dict | None:
    """What a key record says of its result, without when, where and how long; None where it cannot be read."""
    try:
        said = json.loads(record)
        return {name: said[name] for name in ("key", "components", "outputs", "side", "metrics", "facts")}
    except (ValueError, KeyError, TypeError):
        return None


class Probed:
    """A finished project whose outputs are all read at the next run, and what it must give."""

    def __init__(self, task: Task, name: str):
        self.task, self.project, self.nonce = task, task.project(name), FIRST_NONCE
        plain = self.project.run()
        #: What the small pipeline itself made, before there were probes, which nothing reads.
        self.objects = {path: sha256(path) for path in self.project.objects()}
        self.records = {path: result_in(path.read_bytes()) for path in self.project.objects("keys")}
        probed(self.project)
        first = run_probed(self.project, self.nonce)
        if plain.code != 0 or first.code != 0:
            raise SystemExit(f"the probed pipeline does not run, no fault was injected: {first.said()}")
        #: A filter that drops nothing gives what it reads; other probes may depend on their nonce.
        varying = {f"probe_{name}" for name, op, *_ in READERS if op != "data.filter"}
        self.outputs = {stage: ports for stage, ports in self.project.outputs().items() if stage not in varying}
        self.published = self.project.published()

    def survives(self, path: Path | None, what: str) -> bool:
        """Runs with every probe; all digests must be those of the first run."""
        self.nonce += 1
        done = run_probed(self.project, self.nonce)
        self.task.no_bug(done, what)
        before = len(self.task.failures)
        self.task.check(done.code == 0, f"{what}: {done.said()}")
        outputs = self.project.outputs()
        wrong = sorted(stage for stage in self.outputs if outputs.get(stage) != self.outputs[stage])
        self.task.check(not wrong, f"{what}: not detected, other digests from {wrong}")
        self.task.check(self.project.published() == self.published, f"{what}: published other bytes")
        if path is not None and not self.is_whole(path):
            self.left_behind(path, what)
        return len(self.task.failures) == before

    def left_behind(self, path: Path, what: str) -> None:
        """Still damaged after a run: allowed only for what nobody read (a trace, a report), and `verify` must find it."""
        if not self.task.has("verify"):
            self.task.notes[:] = ["side outputs need `llmflow verify`, which is not there yet"]
            return
        verified = self.project.llmflow("verify", "--json")
        self.task.no_bug(verified, "verify")
        is_named = path.name[:12] in verified.out
        self.task.check(verified.code != 0 and is_named, f"{what}: `verify` misses it, {verified.said()}")
        repaired = self.project.llmflow("verify", "--repair")
        self.task.no_bug(repaired, "verify --repair")
        self.task.check(self.is_whole(path), f"{what}: `verify --repair` leaves it in place")

    def is_whole(self, path: Path) -> bool:
        """Gone, or what it was; a record made anew says the same of the result at another time."""
        if not path.is_file() or sha256(path) == self.objects[path]:
            return True
        return "keys" in path.parts and result_in(path.read_bytes()) == self.records[path]

    def restore(self, path: Path, original: bytes) -> None:
        """Puts the object back as it was, so that one failure does not spoil the next round."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or sha256(path) != self.objects[path]:
            path.unlink(missing_ok=True)
            path.write_bytes(original)


def run(task: Task) -> None:
    state = Probed(task, "probed")
    originals = {path: path.read_bytes() for path in state.objects}
    plan = [(path, damage) for path in originals for damage in DAMAGES if originals[path]]
    if not task.is_full:
        plan = random.Random(task.seed).sample(plan, min(len(plan), 60))
    for number, (path, damage) in enumerate(plan):
        inner = path.relative_to(state.project.home)
        with task.round(f"{number}") as dice:
            damage(path, dice)
            if path.read_bytes() == originals[path]:
                continue
            state.survives(path, f"{damage.__name__} of {inner}")
            state.restore(path, originals[path])
    # An output that differs from what its digest says must be seen by the comparison itself.
    with task.control():
        state.outputs = {stage: dict(ports, other="0") for stage, ports in state.outputs.items()}
        state.survives(None, "no damage")
