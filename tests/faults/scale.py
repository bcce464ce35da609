"""A large pipeline with a matrix, retries, a column that fails and fake GPUs: killed, resumed, explained, collected.

300 stages in the quick tier, 10,000 in the full one (tests/bench/generate.py, shape `main`). Then the same on one S3 store
from two homes, where the second home starts nothing, but for the stage that fails, which leaves no result to share.
"""

import random
import sys
import time
from pathlib import Path

from kill import tidy
from project import Done, Project, stages_with
from rounds import Skipped, Task
from servers import BUCKET, free_port, has_moto, make_bucket, moto, s3_environment

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import generate  # noqa: E402

GPUS = {"LLMFLOW_FAKE_GPUS": "4x80GiB"}
PATIENCE = 1_800
FAILING = f"s{generate.FAILING}"


def run(task: Task) -> None:
    count = task.of(300, 10_000)
    reference = large(task, "reference", count)
    checked = reference.llmflow("check", "pipeline.yaml")
    if checked.code != 0:
        raise Skipped(f"the generated pipeline is refused: {checked.said()}")
    undisturbed = go(reference)
    task.notes.append(f"{count:,} stages undisturbed in {undisturbed.seconds:.1f} s")
    if not task.check(undisturbed.code == 1, f"one column fails, so exit 1: {undisturbed.said()}"):
        task.caught(True)
        return
    outputs = outputs_of(undisturbed)
    for number in range(task.of(3, 10)):
        with task.round(f"killed-{number}") as dice:
            killed(task, large(task, f"killed-{number}", count), outputs, undisturbed.seconds, dice)
    with task.round("explained"):
        explained(task, reference)
    with task.round("one S3 store, two homes"):
        shared(task, count, outputs)
    # A store that forgot everything must show as work done again.
    with task.control() as dice:
        killed(task, large(task, "control", count), outputs, undisturbed.seconds, random.Random(1), forgets=True)


def large(task: Task, name: str, count: int) -> Project:
    project = task.project(name)
    generate.write(project.folder, "main", count)
    return project


def go(project: Project, **env: str) -> Done:
    return project.llmflow("run", "pipeline.yaml", "--json", env=GPUS | env, seconds=PATIENCE)


def outputs_of(*runs: Done) -> dict[str, dict]:
    ended = [event for done in runs for event in done.events if event["event"] in ("finished", "cached")]
    return {event["stage"]: event["outputs"] for event in ended}


def killed(task: Task, project: Project, outputs: dict, seconds: float, dice: random.Random, forgets: bool = False) -> None:
    """Killed two times, then gone on with to the end that the failing column allows."""
    done: list[Done] = []
    for word in ("run", "resume"):
        words = ["run", "pipeline.yaml"] if word == "run" or not done[0].events else ["resume"]
        running = project.start(*words, "--json", env=GPUS)
        running.wait_for(lambda events: bool(stages_with(events, "finished")))
        time.sleep(dice.uniform(0.1, 0.5) * seconds)
        running.kill_group()
        done.append(running.wait(PATIENCE))
        if forgets:
            for record in project.objects("keys"):
                record.unlink()
    done.append(project.llmflow("resume", "--json", env=GPUS, seconds=PATIENCE))
    for one in done:
        task.no_bug(one, "a large run")
    task.check(done[-1].code == 1, f"gone on with: {done[-1].said()}")
    finished = [stage for one in done for stage in stages_with(one.events, "finished")]
    twice = sorted({stage for stage in finished if finished.count(stage) > 1})
    task.check(not twice, f"{len(twice)} stages finished twice: {twice[:5]}")
    found = outputs_of(*done)
    missing = sorted(set(outputs) - set(found))
    other = sorted(stage for stage in outputs if stage in found and found[stage] != outputs[stage])
    task.check(not missing, f"{len(missing)} stages never ended: {missing[:5]}")
    task.check(not other, f"{len(other)} stages with other digests: {other[:5]}")
    tidy(task, project)


def explained(task: Task, project: Project) -> None:
    """Queries answer, with words, at this size."""
    stages = [event["stage"] for event in go(project).events if event["event"] in ("finished", "cached")]
    last = stages[-1] if stages else "s200"
    for words in (["explain", f"@/{last}"], ["show", "@"], ["show", f"@/{last}"], ["runs"], ["lineage", f"@/{last}"], ["show", f"@/{FAILING}"]):
        done = project.llmflow(*words)
        task.no_bug(done, " ".join(words))
        task.check(done.code == 0 and done.out.strip() != "", f"{' '.join(words)}: {done.said()}")
    changed = project.llmflow("run", "pipeline.yaml", "--json", "--set", "s150.max_words=7", env=GPUS, seconds=PATIENCE)
    started = set(stages_with(changed.events, "started")) - {FAILING}
    task.check(started == {"s150"}, f"rows are the same, so only the changed stage runs: {sorted(started)[:8]}")
    if task.has("diff"):
        differed = project.llmflow("diff", "@-1", "@")
        task.no_bug(differed, "diff")
        task.check(differed.code == 0 and "max_words" in differed.out, f"`diff` does not name the change: {differed.said()}")
    if task.has("gc"):
        before = len(project.objects("keys"))
        priced = project.llmflow("gc", "--dry-run")
        task.check(priced.code == 0 and len(project.objects("keys")) == before, f"`gc --dry-run`: {priced.said()}")


def shared(task: Task, count: int, outputs: dict) -> None:
    """Two homes on one S3 store: the second starts nothing that the first has done."""
    projects = [large(task, f"one S3 store, two homes/{name}", count) for name in "ab"]
    for project in projects:
        file = project.folder / "pipeline.yaml"
        file.write_text(file.read_text().replace("seed: 1\n", f'seed: 1\nstore: "s3://{BUCKET}/scale"\n'))
    if not has_moto() or projects[0].llmflow("check", "pipeline.yaml").code != 0:
        task.count -= 1
        task.notes.append("one S3 store from two homes not tried")
        return
    port = free_port()
    with moto(port):
        make_bucket(port)
        first, second = (go(project, **s3_environment(port)) for project in projects)
    for done in (first, second):
        task.no_bug(done, "on S3")
        task.check(done.code == 1, f"on S3: {done.said()}")
    started = set(stages_with(second.events, "started")) - {FAILING}
    task.check(not started, f"the second home starts {len(started)} stages: {sorted(started)[:5]}")
    task.check(outputs_of(second) == outputs_of(first), "homes of one store differ")
