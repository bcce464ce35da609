"""An S3 server that checks signatures, checksums and clocks, and keeps what it was given: s3s-fs."""

import random
import shutil
import time
from pathlib import Path

from project import Project, Reference, stages_with
from rounds import Skipped, Task
from servers import SECRET, free_port, has_s3s, on_s3, s3_environment, s3s

#: What asks for work that no round has done, so that the store is needed.
CHANGED = ["--set", "clean.min_words=6"]


def run(task: Task) -> None:
    if not has_s3s():
        raise Skipped("s3s-fs is not installed: tests/faults/install.sh --full")
    reference = task.reference()
    port, objects = free_port(), task.work / "objects"
    env = s3_environment(port)
    with s3s(port, objects):
        with task.round("two homes"):
            for name in ("first", "second"):
                project = on_s3(task.project(f"two homes/{name}"))
                done = project.run(env=env)
                task.check(done.code == 0, f"the {name} home: {done.said()}")
                task.check(project.outputs(env=env) == reference.outputs, f"other digests in the {name} home")
            task.check(not stages_with(done.events, "started"), "the second home computes again")
        with task.round("wrong keys"):
            denied(task, "wrong keys", env | {"AWS_SECRET_ACCESS_KEY": "another-secret"}, "SignatureDoesNotMatch")
        library = next(Path("/usr/lib").rglob("libfaketimeMT.so.1"), None)
        for late in ["+1200", "-172800"] if library else []:
            with task.round(f"clock {late}"):
                skew = {"LD_PRELOAD": str(library), "FAKETIME": late, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
                denied(task, f"clock {late}", env | skew, "RequestTimeTooSkewed")
    for number in range(task.of(1, 20)):
        with task.round(f"again-{number}") as dice:
            again(task, f"again-{number}", reference, dice)
    # A server that comes back without what it had is noticed.
    with task.control("control") as dice:
        again(task, "control", reference, dice, keeps=False)


def denied(task: Task, name: str, env: dict, code: str) -> None:
    """Exit 3, in the server's own words, with what to do and without a secret."""
    done = on_s3(task.project(name)).llmflow("run", "small.yaml", "--json", *CHANGED, env=env)
    task.no_bug(done, name)
    task.check(done.code == 3 and "store/denied" in done.out and code in done.out, f"{name}: {done.said()}")
    told = done.out + done.err
    task.check(SECRET not in told and env["AWS_SECRET_ACCESS_KEY"] not in told, f"{name}: a secret is told")


def again(task: Task, name: str, reference: Reference, dice: random.Random, keeps: bool = True) -> None:
    """Killed in the middle of a run and started again: nothing that was printed as done is computed again."""
    port, objects = free_port(), task.work / f"objects-{name}"
    env = s3_environment(port)
    project = on_s3(task.project(name))
    with s3s(port, objects) as server:
        running = project.start("run", "small.yaml", "--json", env=env)
        running.wait_for(lambda events: bool(stages_with(events, "finished")))
        time.sleep(dice.uniform(0, 0.6) * reference.seconds)
        server.kill()
        done = running.wait(60)
        task.no_bug(done, "the server was killed")
        task.check(done.code in (0, 1, 3), f"the server was killed: {done.said()}")
        finished = set(stages_with(done.events, "finished"))
    if not keeps:
        shutil.rmtree(objects)
    with s3s(port, objects):
        whole(task, project, finished, env)
        task.check(project.outputs(env=env) == reference.outputs, "other digests")
    shutil.rmtree(objects, ignore_errors=True)


def whole(task: Task, project: Project, finished: set[str], env: dict) -> None:
    done = project.run(env=env)
    task.no_bug(done, "with the server back")
    task.check(done.code == 0, f"with the server back: {done.said()}")
    repeated = finished & set(stages_with(done.events, "started"))
    task.check(not repeated, f"printed as done, and computed again: {sorted(repeated)}")
