"""A store that goes away in the middle of a run: removed, moved, unreadable, its server killed. Back again, nothing is lost."""

import os
import random
import shutil
import time

from project import Project, Reference, Running, stages_with
from rounds import Task
from servers import free_port, has_moto, make_bucket, moto, on_s3, s3_environment

NOBODY = 65534


def run(task: Task) -> None:
    reference = task.reference()
    for number in range(task.of(4, 40)):
        with task.round(f"moved-{number}") as dice:
            moved(task, task.project(f"moved-{number}"), reference, dice)
        with task.round(f"removed-{number}") as dice:
            removed(task, task.project(f"removed-{number}"), reference, dice)
        if os.geteuid() == 0:
            with task.round(f"unreadable-{number}") as dice:
                unreadable(task, task.project(f"unreadable-{number}"), reference, dice)
    served(task, reference)
    # A store that does not come back is work to be done again, and must show.
    with task.control() as dice:
        moved(task, task.project("control"), reference, dice, comes_back=False)


def interrupted(project: Project, reference: Reference, dice: random.Random, **how) -> Running:
    """A run in which something has finished and something has not."""
    running = project.start("run", "small.yaml", "--json", "--set", "steps=400", **how)
    running.wait_for(lambda events: bool(stages_with(events, "finished")))
    time.sleep(dice.uniform(0, 0.6) * reference.seconds)
    return running


def answer(task: Task, running: Running, what: str) -> set[str]:
    """A clear answer, soon, whatever it is. What was acknowledged."""
    done = running.wait(60)
    task.no_bug(done, what)
    task.check(done.code in (0, 1, 3), f"{what}: {done.said()}")
    return set(stages_with(done.events, "finished"))


def whole_again(task: Task, project: Project, acknowledged: set[str], keeps: bool, **how) -> None:
    """With the store in its place, a run ends well; it computes nothing acknowledged again if the store kept it."""
    done = project.llmflow("run", "small.yaml", "--json", "--set", "steps=400", **how)
    task.no_bug(done, "with the store in its place")
    task.check(done.code == 0, f"with the store in its place: {done.said()}")
    again = acknowledged & set(stages_with(done.events, "started"))
    task.check(not (keeps and again), f"printed as done, and computed again: {sorted(again)}")
    plain = project.run(**how)
    task.check(plain.code == 0, f"the usual run afterwards: {plain.said()}")


def moved(task: Task, project: Project, reference: Reference, dice: random.Random, comes_back: bool = True) -> None:
    """As if a disk was unmounted: and mounted again."""
    running = interrupted(project, reference, dice)
    acknowledged = set(stages_with(running.events(), "finished"))
    store, away = project.home / "store", project.folder / "away"
    store.rename(away)
    answer(task, running, "the store was moved away")
    # What a process made meanwhile in the empty place is no part of the store.
    shutil.rmtree(store, ignore_errors=True)
    if comes_back:
        away.rename(store)
    whole_again(task, project, acknowledged, keeps=True)
    if comes_back:
        task.same(project, reference)


def removed(task: Task, project: Project, reference: Reference, dice: random.Random) -> None:
    running = interrupted(project, reference, dice)
    shutil.rmtree(project.home / "store", ignore_errors=True)
    acknowledged = answer(task, running, "the store was removed")
    whole_again(task, project, acknowledged, keeps=False)
    task.same(project, reference)


def unreadable(task: Task, project: Project, reference: Reference, dice: random.Random) -> None:
    """Permissions taken away, seen by a user who is not root."""
    for root, folders, files in os.walk(project.folder):
        for path in [root, *(os.path.join(root, name) for name in folders + files)]:
            os.chown(path, NOBODY, NOBODY)
    as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    running = interrupted(project, reference, dice, **as_nobody)
    store = project.home / "store"
    store.chmod(0)
    acknowledged = answer(task, running, "the store became unreadable")
    refused = project.run(**as_nobody)
    task.no_bug(refused, "an unreadable store")
    task.check(refused.code == 3, f"an unreadable store: {refused.said()}")
    store.chmod(0o755)
    whole_again(task, project, acknowledged, keeps=True, **as_nobody)
    task.same(project, reference)


def served(task: Task, reference: Reference) -> None:
    """The S3 server is killed in the middle of a run. It keeps nothing, so a second server stands for an empty store."""
    if not has_moto():
        task.notes.append("no S3 server: tests/faults/install.sh")
        return
    port = free_port()
    env = s3_environment(port)
    asks = on_s3(task.project("asks"))
    if asks.llmflow("check", "small.yaml").code != 0:
        task.notes.append("no `store: s3://` yet: a killed server not tried")
        return
    for number in range(task.of(1, 10)):
        with task.round(f"server-{number}") as dice:
            project = on_s3(task.project(f"server-{number}"))
            with moto(port) as server:
                make_bucket(port)
                running = interrupted(project, reference, dice, env=env)
                server.kill()
                answer(task, running, "the S3 server was killed")
            with moto(port):
                make_bucket(port)
                whole_again(task, project, set(), keeps=False, env=env)
                task.check(project.outputs(env=env) == reference.outputs, "other digests on S3")
                second = on_s3(task.project(f"server-{number}-b"))
                done = second.run(env=env)
                started = stages_with(done.events, "started")
                task.check(done.code == 0 and not started, f"a second home starts {started}: {done.said()}")
