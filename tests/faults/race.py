"""Several processes on one home, and on one store from several homes: each key is computed once, and nobody is told of a lock.

Processes start at random offsets. In some rounds one of them is killed, and the others must still end well.
"""

import random
import time
from pathlib import Path

from kill import tidy
from project import Project, Reference, Running, stages_with
from rounds import Task

#: No process of a race may wait longer for the others, in seconds.
DEADLOCK = 60


def run(task: Task) -> None:
    reference = task.reference()
    for number in range(task.of(6, 60)):
        with task.round(f"home-{number}") as dice:
            one_home(task, task.project(f"home-{number}"), reference, dice, [2, 4, 8][number % 3])
    for number in range(task.of(2, 20)):
        with task.round(f"killed-{number}") as dice:
            one_home(task, task.project(f"killed-{number}"), reference, dice, 4, kills_one=True)
    with task.round("home-64") as dice:
        one_home(task, task.project("home-64"), reference, dice, 64)
    for number in range(task.of(2, 10)):
        with task.round(f"resume-{number}") as dice:
            two_resumes(task, task.project(f"resume-{number}"), reference, dice)
    if task.has("gc"):
        for number in range(task.of(2, 30)):
            with task.round(f"gc-{number}") as dice:
                against_gc(task, task.project(f"gc-{number}"), reference, dice)
    several_homes(task, reference)
    # Two homes with a store each compute everything twice: the count must say so.
    with task.control():
        projects = [task.project(f"control/{name}") for name in "ab"]
        each_once(task, [project.start("run", "small.yaml", "--json") for project in projects], reference, may_repeat=0)


def each_once(task: Task, racers: list[Running], reference: Reference, may_repeat: int) -> None:
    """Every racer ends well, and together they computed each stage once; `may_repeat` more where some were killed."""
    ended = [racer.wait(DEADLOCK) for racer in racers]
    for done in ended:
        task.no_bug(done, "race")
        task.check(done.code in (0, -9), f"a racer ends badly: {done.said()}")
    started = [stage for done in ended for stage in stages_with(done.events, "started")]
    repeated = sorted({stage for stage in started if started.count(stage) > 1})
    extra = len(started) - len(set(started))
    task.check(extra <= may_repeat, f"{len(started)} attempts for {len(set(started))} stages, more than once: {repeated}")
    # Who was killed may have computed one and not lived to say so: the others then found it.
    found = {stage for done in ended for stage in stages_with(done.events, "cached")} if may_repeat else set()
    missing = set(reference.outputs) - set(started) - found
    task.check(not missing, f"nobody computed {sorted(missing)}")


def one_home(task: Task, project: Project, reference: Reference, dice: random.Random, count: int, kills_one=False) -> None:
    racers = []
    for _ in range(count):
        racers.append(project.start("run", "small.yaml", "--json"))
        time.sleep(dice.uniform(0, reference.seconds / count))
    if kills_one:
        time.sleep(dice.uniform(0, reference.seconds / 2))
        dice.choice(racers).kill_group()
    each_once(task, racers, reference, may_repeat=2 if kills_one else 0)
    last = project.run()
    task.check(last.code == 0 and not stages_with(last.events, "started"), f"work is left after the race: {last.said()}")
    task.same(project, reference)
    tidy(task, project)


def two_resumes(task: Task, project: Project, reference: Reference, dice: random.Random) -> None:
    """Two `resume` of one run: one works, the other waits for it or says who does."""
    killed = project.start("run", "small.yaml", "--json")
    time.sleep(dice.uniform(0.3, 0.9) * reference.seconds)
    killed.kill_group()
    killed.wait()
    ended = [racer.wait(DEADLOCK) for racer in [project.start("resume", "@", "--json") for _ in range(2)]]
    for done in ended:
        task.no_bug(done, "resume")
    codes = sorted(done.code for done in ended)
    nothing_was_recorded = not killed.events() and codes[0] != 0
    task.check(codes[0] == 0 or nothing_was_recorded, f"neither resume ends well: {codes}, {ended[0].said()}")
    for done in ended:
        if done.code != 0 and not nothing_was_recorded:
            task.check(done.code == 3 and "in progress" in done.said(), f"the other resume: {done.said()}")
    started = [stage for done in ended for stage in stages_with(done.events, "started")]
    task.check(len(started) == len(set(started)), f"both computed {sorted(started)}")
    project.run()
    task.same(project, reference)


def against_gc(task: Task, project: Project, reference: Reference, dice: random.Random) -> None:
    """`gc` beside a run, again and again: nothing that the run made or reads is collected."""
    running, collected = project.start("run", "small.yaml", "--json"), []
    running.wait_for(bool)  # before its first word there may be no home yet
    while running.process.poll() is None:
        time.sleep(dice.uniform(0, reference.seconds / 5))
        collected.append(project.llmflow("gc"))
    done = running.wait(DEADLOCK)
    for one in [done, *collected]:
        task.no_bug(one, "gc beside a run")
    task.check(done.code == 0, f"a run beside gc: {done.said()}")
    bad = [one.said() for one in collected if one.code not in (0, 3)]
    task.check(not bad, f"gc beside a run: {bad[:1]}")
    project.llmflow("gc")
    last = project.run()
    task.check(last.code == 0 and not stages_with(last.events, "started"), f"gc took what a kept run made: {last.said()}")
    task.same(project, reference)


def several_homes(task: Task, reference: Reference) -> None:
    """Homes that share a store (`store:` in the file)."""
    shared = task.work / "shared-store"
    if not shares(task.project("asks"), shared):
        task.notes.append("no `store:` in pipeline files yet: several homes not tried")
        return
    for number in range(task.of(2, 20)):
        with task.round(f"homes-{number}") as dice:
            store = task.work / f"homes-{number}/store"
            projects = [task.project(f"homes-{number}/{name}") for name in range(4)]
            if not all([shares(project, store) for project in projects]):
                task.fail("`store:` is refused")
            racers = []
            for project in projects:
                racers.append(project.start("run", "small.yaml", "--json"))
                time.sleep(dice.uniform(0, reference.seconds / 4))
            each_once(task, racers, reference, may_repeat=0)
            outputs = [project.outputs() for project in projects]
            task.check(all(found == reference.outputs for found in outputs), "homes of one store differ")


def shares(project: Project, store: Path) -> bool:
    """Points the project's pipeline at a store of its own. False where that is no key of pipeline files."""
    file = project.folder / "small.yaml"
    file.write_text(file.read_text().replace("seed: 7\n", f'seed: 7\nstore: "file://{store}"\n'))
    return project.llmflow("check", "small.yaml").code == 0
