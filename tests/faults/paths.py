"""Paths that lead outside: `..`, symbolic links, occupied folders, names that are paths. Nothing outside is touched.

A folder beside the project is the outside: a round compares every file of it before and after.
"""

import json
import os
from pathlib import Path

from project import Done, Project, sha256
from rounds import Task


class Outside:
    """A folder of somebody's own beside the project."""

    def __init__(self, project: Project):
        self.root = project.folder.parent / f"{project.folder.name}-outside"
        (self.root / "inner").mkdir(parents=True, exist_ok=True)
        (self.root / "precious.txt").write_text("precious")
        (self.root / "inner/precious.txt").write_text("precious too")
        self.before = self.state()

    def state(self) -> dict[str, str]:
        return {str(path.relative_to(self.root)): sha256(path) for path in self.root.rglob("*") if path.is_file()}

    def untouched(self, task: Task, what: str) -> None:
        task.check(self.state() == self.before, f"{what}: the folder outside changed, {sorted(self.state())}")


def with_publish(project: Project, path: str, target: str = "unique") -> None:
    file = project.folder / "small.yaml"
    text = file.read_text().split("publish:")[0]
    file.write_text(f"{text}publish:\n  {target}: {path}\n")


def answers(task: Task, done: Done, what: str, *codes: int) -> None:
    task.no_bug(done, what)
    task.check(done.code in codes, f"{what}: {done.said()}, wanted exit {codes}")
    task.check(done.code == 0 or bool(done.said().strip()), f"{what}: says nothing")


def run(task: Task) -> None:
    with task.round("publish into an occupied folder"):
        project = task.project("publish into an occupied folder")
        outside = Outside(project)
        with_publish(project, f"{outside.root}/inner/")
        answers(task, project.run(), "publishing over somebody's folder", 1, 2, 3)
        outside.untouched(task, "publishing over somebody's folder")
    with task.round("publish through a link to a folder"):
        project = task.project("publish through a link to a folder")
        outside = Outside(project)
        (project.folder / "link").symlink_to(outside.root / "inner")
        with_publish(project, "link")
        answers(task, project.run(), "publishing over a link to somebody's folder", 0, 1, 2, 3)
        outside.untouched(task, "publishing over a link to somebody's folder")
    with task.round("publish over a link to a file"):
        project = task.project("publish over a link to a file")
        outside = Outside(project)
        (project.folder / "link.gguf").symlink_to(outside.root / "precious.txt")
        with_publish(project, "link.gguf", "gguf")
        answers(task, project.run(), "publishing over a link to somebody's file", 0, 1, 2, 3)
        outside.untouched(task, "publishing over a link to somebody's file")
    with task.round("publish above the project"):
        project = task.project("publish above the project")
        outside = Outside(project)
        with_publish(project, f"../{outside.root.name}/../{outside.root.name}/precious.txt/x", "gguf")
        answers(task, project.run(), "publishing below somebody's file", 1, 2, 3)
        outside.untouched(task, "publishing below somebody's file")
    with task.round("names that are paths"):
        names(task)
    with task.round("links among sources"):
        sources(task)
    with task.round("a home behind a link"):
        project = task.project("a home behind a link")
        (project.folder / "real").mkdir()
        (project.folder / "linked").symlink_to("real")
        project.home = project.folder / "linked"
        answers(task, project.run(), "a home behind a link", 0)
        task.check((project.folder / "real/lineage.db").exists(), "state is not where the link leads")
    export(task)
    tag(task)
    # The comparison must see a file that changed.
    with task.control():
        outside = Outside(task.project("control"))
        (outside.root / "inner/precious.txt").write_text("gone")
        outside.untouched(task, "a change")


def names(task: Task) -> None:
    """Stage ids, runs and addresses are no paths."""
    project = task.project("names that are paths")
    outside = Outside(project)
    hostile = f"../../{outside.root.name}/evil"
    for stage in (hostile, "/etc/evil", "a/b", ".", "..", "a\\b", "x" * 300, "CON", "-n"):
        quoted = json.dumps(stage)
        (project.folder / "named.yaml").write_text(
            f"name: n\nstages:\n  {quoted}:\n    op: data.load\n    with: {{ path: data/corpus.jsonl, format: text }}\n"
        )
        done = project.llmflow("run", "named.yaml", "--json")
        task.no_bug(done, f"a stage called {stage[:20]}")
        task.check(done.code in (0, 2), f"a stage called {stage[:20]}: {done.said()}")
    for words in (["resume", hostile], ["show", hostile], ["show", f"@/{hostile}"], ["logs", f"@/{hostile}"], ["explain", hostile]):
        done = project.llmflow(*words)
        task.no_bug(done, " ".join(words))
        task.check(done.code in (1, 2, 3), f"{' '.join(words)}: {done.said()}")
    outside.untouched(task, "names that are paths")
    task.check(not list(project.folder.parent.rglob("evil*")), "a file called evil was made outside")


def sources(task: Task) -> None:
    """A loop of links ends, a link to a file is read by its bytes, a link to nothing is an error."""
    project = task.project("links among sources")
    docs = project.folder / "docs"
    (docs / "inner").mkdir(parents=True)
    (docs / "a.md").write_text("Words of a document.")
    (docs / "inner/loop").symlink_to(docs)
    (docs / "link.md").symlink_to("a.md")
    text = 'name: n\nstages:\n  docs:\n    op: data.load\n    with: {{ path: "{}", format: text }}\n'
    file = project.folder / "linked.yaml"
    file.write_text(text.format("docs/**/*.md"))
    answers(task, project.llmflow("run", "linked.yaml", "--json", seconds=20), "a loop of links", 0, 2)
    (docs / "gone.md").symlink_to("nowhere.md")
    done = project.llmflow("run", "linked.yaml", "--json", seconds=20)
    answers(task, done, "a link to nothing", 0, 1, 2, 3)
    os.mkfifo(docs / "pipe.md")
    file.write_text(text.format("docs/pipe.md"))
    answers(task, project.llmflow("run", "linked.yaml", "--json", seconds=20), "a pipe as a source", 1, 2, 3)
    file.write_text(text.format("/dev/zero"))
    answers(task, project.llmflow("run", "linked.yaml", "--json", seconds=20), "/dev/zero as a source", 1, 2, 3)


def export(task: Task) -> None:
    if not task.has("export"):
        task.notes.append("`export` is not there yet")
        return
    with task.round("export"):
        project = task.project("export")
        outside = Outside(project)
        answers(task, project.run(), "the run", 0)
        for target in (f"{outside.root}/inner", f"{outside.root}/precious.txt", f"../{outside.root.name}/inner"):
            done = project.llmflow("export", "@/unique", target)
            answers(task, done, f"export to {Path(target).name}", 1, 2, 3)
            outside.untouched(task, f"export to {target}")
        answers(task, project.llmflow("export", "@/unique", "fresh/rows"), "export to a new folder", 0)
        task.check((project.folder / "fresh/rows").exists(), "export made nothing")


def tag(task: Task) -> None:
    if not task.has("tag"):
        task.notes.append("`tag` is not there yet")
        return
    with task.round("tag"):
        project = task.project("tag")
        outside = Outside(project)
        answers(task, project.run(), "the run", 0)
        for name in (f"../../{outside.root.name}/evil", "/etc/evil", "..", "", "a\nb", "x" * 300):
            done = project.llmflow("tag", "@", name)
            answers(task, done, f"a tag called {name[:20]!r}", 1, 2, 3)
        outside.untouched(task, "tags that are paths")
        task.check(not list(project.folder.parent.rglob("evil*")), "a file called evil was made outside")
