"""Every stored object deleted in turn, random subsets of them, and all blobs at once: made anew by their producers alone."""

import random
import shutil

from damage import Probed
from rounds import Task


def run(task: Task) -> None:
    state = Probed(task, "probed")
    originals = {path: path.read_bytes() for path in state.objects}
    singles = list(originals)
    if not task.is_full:
        singles = random.Random(task.seed).sample(singles, min(len(singles), 30))
    for path in singles:
        with task.round(str(task.count)):
            path.unlink()
            state.survives(None, f"{path.relative_to(state.project.home)} is gone")
            state.restore(path, originals[path])
    for number in range(task.of(6, 200)):
        with task.round(f"subset-{number}") as dice:
            gone = dice.sample(list(originals), dice.randint(2, len(originals)))
            for path in gone:
                path.unlink(missing_ok=True)
            state.survives(None, f"{len(gone)} objects are gone")
            for path in gone:
                state.restore(path, originals[path])
    with task.round("every blob"):
        shutil.rmtree(state.project.home / "store/blobs")
        state.survives(None, "every blob is gone, every record is left")
    # Results that cannot come back: the published file is removed and the pipeline no longer publishes it.
    with task.control():
        file = state.project.folder / "small.yaml"
        file.write_text(file.read_text().replace("  gguf: out/small.gguf\n", ""))
        (state.project.folder / "out/small.gguf").unlink()
        state.survives(None, "a published file is gone")
