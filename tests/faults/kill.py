"""kill -9 of the engine's process group, or of every process, at random moments, gone on with until done.

Each round kills a first run somewhere in 0-100 % of the undisturbed time, and its continuation up to twice more.
"""

import random
import signal
import time

from project import Project, Reference, stages_with
from rounds import Task


def run(task: Task) -> None:
    reference = task.reference()
    for number in range(task.of(50, 200)):
        with task.round(f"kill-{number}") as dice:
            killed_round(task, task.project(f"kill-{number}"), reference, dice)
    # A commit lost by a crash is what no kill may do: the round must notice one.
    with task.control():
        killed_round(task, task.project("control"), reference, random.Random(1), loses_a_commit=True)


def killed_round(
    task: Task, project: Project, reference: Reference, dice: random.Random, loses_a_commit: bool = False
) -> None:
    acknowledged: set[str] = set()
    for kill in range(1 if loses_a_commit else dice.choice([1, 1, 2, 3])):
        words = ["run", "small.yaml"] if kill == 0 or dice.random() < 0.5 else ["resume"]
        running = project.start(*words, "--json")
        if loses_a_commit:
            running.wait_for(lambda events: "clean" in stages_with(events, "finished"))
        else:
            time.sleep(dice.uniform(0, reference.seconds))
        if dice.random() < 0.5:
            running.kill_group()  # workers may have groups of their own: they see that the engine is gone
        else:
            project.signal_all(signal.SIGKILL)
        done = running.wait()
        again = acknowledged & set(stages_with(done.events, "started"))
        task.check(not again, f"done, and computed again after a kill: {sorted(again)}")
        acknowledged |= set(stages_with(done.events, "finished"))
        if done.code == 0:
            break
    if loses_a_commit:
        lose_a_commit(project)
    gone_on(task, project, reference, acknowledged)


def gone_on(task: Task, project: Project, reference: Reference, acknowledged: set[str]) -> None:
    """What must hold of an interrupted run that is continued to its end."""
    committed = {path.name for path in project.objects("keys")}
    tries, is_done = project.finish()
    for done in tries:
        task.no_bug(done, "resume")
    if not task.check(is_done, f"does not end well: {tries[-1].said()}"):
        return
    started = [stage for done in tries for stage in stages_with(done.events, "started")]
    again = acknowledged & set(started)
    task.check(not again, f"printed as done, and computed again: {sorted(again)}")
    repeated = [event["stage"] for done in tries for event in done.events if event["event"] == "finished"]
    by_key = {event.get("key") for done in tries for event in done.events if event["event"] == "finished"}
    task.check(not by_key & committed, f"committed before the kill, and computed again: {sorted(by_key & committed)}")
    task.check(len(repeated) == len(set(repeated)), f"finished twice: {sorted(repeated)}")
    status = project.status()
    task.check(status == "done", f"gone on with until done, and `show @` says {status}")
    task.same(project, reference)
    tidy(task, project)


def tidy(task: Task, project: Project) -> None:
    """No run seems to be in progress, and gc leaves nothing half-written."""
    listed = project.llmflow("runs", "--json")
    task.check(listed.code == 0, f"`runs`: {listed.said()}")
    task.check('"running"' not in listed.out, "a dead run is shown as running")
    if task.has("gc"):
        swept = project.llmflow("gc")
        task.check(swept.code == 0, f"`gc`: {swept.said()}")
        litter = project.litter()
        task.check(not litter, f"{len(litter)} files left after gc: {litter[:3]}")


def lose_a_commit(project: Project) -> None:
    """What a crash could do to a commit that was not durable: its record is gone. (One of a finished stage.)"""
    for record in project.objects("keys"):
        record.unlink()
