"""Random single edits of random graphs: what `plan` says is what happens, and nothing is computed twice.

Here a key is the operator, its params and the bytes it reads, reckoned without the engine. After every edit exactly the
stages whose key was never seen start; each `run` of the plan starts, each `cached` does not, and of the `waits` exactly those
whose inputs came out as never before. A second home on the same store then starts nothing.
"""

import copy
import hashlib
import json
import os
import random
from dataclasses import dataclass, field

from project import Done, Project, stages_with
from rounds import Task

#: Rows are as long as this, so that a bound on words sometimes drops some and sometimes none: early cut-off needs both.
WORDS = (2, 9)


@dataclass
class Graph:
    project: Project
    stages: dict[str, dict] = field(default_factory=dict)
    comments: int = 0
    #: Keys of all that was ever computed, as reckoned here.
    seen: set[tuple] = field(default_factory=set)
    #: Stages that the history knows.
    ran: set[str] = field(default_factory=set)
    #: What `max_words` and files were before, to go back to.
    past: list[tuple[str, object]] = field(default_factory=list)

    def write(self) -> None:
        pipeline = {"name": "edits", "store": "shared", "stages": self.stages}
        (self.project.folder / "pipeline.yaml").write_text(json.dumps(pipeline, indent=1) + "\n" + "# a word\n" * self.comments)

    def rows(self, stage: str, dice: random.Random) -> None:
        path = self.project.folder / self.stages[stage]["with"]["path"]
        rows = [" ".join(["word", stage, *(f"w{dice.randrange(99)}" for _ in range(dice.randint(*WORDS) - 2))]) for _ in range(4)]
        path.write_text("".join(json.dumps({"text": row}) + "\n" for row in [f"short {stage}", *rows]))

    def add(self, dice: random.Random) -> str:
        before, name = list(self.stages), f"s{len(self.stages)}"
        if len(before) < 2:
            self.stages[name] = {"op": "data.load", "with": {"path": f"{name}.jsonl", "format": "text"}}
            self.rows(name, dice)
        elif dice.random() < 0.3:
            inputs = dice.sample(before, min(len(before), dice.randint(2, 3)))
            self.stages[name] = {"op": "data.dedup", "in": inputs, "with": {"method": "exact"}}
        else:
            self.stages[name] = {"op": "data.filter", "in": dice.choice(before), "with": {"max_words": dice.randint(*WORDS)}}
        return f"added {name}"

    def edit(self, dice: random.Random) -> str:
        """One change; says which."""
        names = list(self.stages)
        loads = [name for name in names if self.stages[name]["op"] == "data.load"]
        filters = [name for name in names if self.stages[name]["op"] == "data.filter"]
        kind = dice.choice(["param", "param", "back", "rows", "touch", "rewire", "add", "comment"])
        if kind == "param" and filters:
            name = dice.choice(filters)
            self.past.append((name, copy.deepcopy(self.stages[name])))
            self.stages[name]["with"]["max_words"] = dice.randint(*WORDS)
        elif kind == "back" and self.past:
            name, stage = self.past.pop(dice.randrange(len(self.past)))
            self.stages[name] = stage
        elif kind == "rows":
            name = dice.choice(loads)
            self.rows(name, dice)
        elif kind == "touch":
            name = dice.choice(loads)
            os.utime(self.project.folder / self.stages[name]["with"]["path"])
        elif kind == "rewire" and filters:
            name = dice.choice(filters)
            self.past.append((name, copy.deepcopy(self.stages[name])))
            self.stages[name]["in"] = dice.choice(names[: names.index(name)])
        elif kind == "add":
            return self.add(dice)
        else:
            self.comments += 1
            return "a comment"
        return f"{kind} {name}"

    def key(self, name: str, outputs: dict[str, dict]) -> tuple:
        stage = self.stages[name]
        if stage["op"] == "data.load":
            return "load", hashlib.sha256((self.project.folder / stage["with"]["path"]).read_bytes()).hexdigest()
        inputs = [stage["in"]] if isinstance(stage["in"], str) else stage["in"]
        return stage["op"], json.dumps(stage["with"]), *(outputs[source]["data"] for source in inputs)


def run(task: Task) -> None:
    for number in range(task.of(8, 1_000)):
        with task.round(f"graph-{number}") as dice:
            edited(task, task.project(f"graph-{number}"), dice)
    # A store that forgets what it has must show as work that nothing called for.
    with task.control() as dice:
        edited(task, task.project("control"), dice, forgets=True)


def edited(task: Task, project: Project, dice: random.Random, forgets: bool = False) -> None:
    graph = Graph(project)
    for _ in range(dice.randint(4, 14)):
        graph.add(dice)
    went(task, graph, "the first run")
    for number in range(10):
        what = f"edit {number}, {graph.edit(dice)}"
        if forgets:
            for record in (project.folder / "shared/keys").rglob("*"):
                record.unlink() if record.is_file() else None
        went(task, graph, what)
    home, project.home = project.home, project.folder / "another-home"
    second = go(project)
    task.check(not stages_with(second.events, "started"), f"a second home starts {stages_with(second.events, 'started')}")
    project.home = home


def go(project: Project) -> Done:
    return project.llmflow("run", "pipeline.yaml", "--json")


def went(task: Task, graph: Graph, what: str) -> None:
    """Plans, runs, and compares both with what had to happen."""
    graph.write()
    planned = graph.project.llmflow("plan", "pipeline.yaml", "--json")
    if not task.check(planned.code == 0, f"{what}: plan: {planned.said()}"):
        return
    will = {stage["stage"]: stage["will"] for stage in json.loads(planned.out)["stages"]}
    done = go(graph.project)
    task.no_bug(done, what)
    outputs = {event["stage"]: event["outputs"] for event in done.events if event["event"] in ("finished", "cached")}
    if not task.check(done.code == 0 and set(outputs) == set(graph.stages), f"{what}: {done.said()}"):
        return
    started = set(stages_with(done.events, "started"))
    new: dict[tuple, list[str]] = {}
    for name in graph.stages:
        key = graph.key(name, outputs)
        if key not in graph.seen:
            new.setdefault(key, []).append(name)
    graph.seen |= set(new)
    # Of stages with one key one computes; which of them is nobody's business.
    for key, names in new.items():
        task.check(len(started & set(names)) == 1, f"{what}: of {names} one had to start, not {sorted(started & set(names))}")
    extra = started - {name for names in new.values() for name in names}
    task.check(not extra, f"{what}: {sorted(extra)} started, though computed before")
    alike = {name for names in new.values() if len(names) > 1 for name in names}
    for name, said in will.items():
        if said["will"] == "cached":
            task.check(name not in started, f"{what}: {name} was to be cached, and started")
        elif said["will"] == "run":
            task.check(name in started | alike, f"{what}: {name} was to run, and did not")
            because = said.get("because", [])
            named = [one for one in because if one.get("part") and one.get("before") != one.get("now")]
            task.check(len(named) == len(because), f"{what}: {name} runs because of {because}")
        else:
            task.check(said["will"] == "waits", f"{what}: {name} {said['will']}")
            if name in started & graph.ran:
                explained(task, graph.project, what, name)
    graph.ran |= set(graph.stages)  # also where nothing was left to do: the history then tells what is there


def explained(task: Task, project: Project, what: str, name: str) -> None:
    """A stage that waited and ran names the part of its key that differs, with the old value and the new one."""
    done = project.llmflow("explain", f"@/{name}", "--json")
    changes = json.loads(done.out)["changes"] if done.code == 0 else []
    named = [one for one in changes if one.get("part") and one.get("before") != one.get("now")]
    task.check(bool(changes) and len(named) == len(changes), f"{what}: {name} waited and ran because of {changes} ({done.said()})")
