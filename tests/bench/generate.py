#!/usr/bin/env python3
"""Writes pipelines of any size, made of real stages on tiny data, and the same graphs for other tools.

    python3 tests/bench/generate.py FOLDER --stages 10000 --shape layered

Shapes:
    layered      100 wide: stage i needs stage i-100. The first 100 load a file of three rows, the others filter.
    independent  every stage loads a file of its own: no two outputs share bytes.
    matrix       one load and one stage with a `matrix` that expands to the rest.
    main         layered, with a matrix in place of the last layer, `retry` on every filter, one column that fails at its
                 first stage (a bad row), and two columns that demand a GPU (set LLMFLOW_FAKE_GPUS).
Beside `pipeline.yaml` of a layered or independent graph it writes build.ninja, Snakefile and dvc.yaml, whose steps are
`echo i > file`. No two stages share a key, so that every one is computed.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

WIDTH = 100
SHAPES = ["layered", "independent", "matrix", "main"]
#: Of `main`: the column that fails, and every so many a column that demands a GPU.
FAILING, GPU_EVERY = 7, 50
#: Above every real number of words: no row is dropped, and no two stages share a key.
WORDS = 100_000


def needs(stage: int, shape: str) -> int | None:
    """The stage that this one reads."""
    return stage - WIDTH if shape != "independent" and stage >= WIDTH else None


def write_rows(folder: Path, files: int, failing: set[int] = frozenset()) -> None:
    rows = folder / "rows"
    rows.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        lines = [f'{{"text": "Row {line} of file {number} is short."}}' for line in range(3)]
        if number in failing:
            lines[1] = '{"text": '
        (rows / f"{number}.jsonl").write_text("\n".join(lines) + "\n")


def load(stage: int) -> str:
    return f"  s{stage}:\n    op: data.load\n    with: {{ path: rows/{stage}.jsonl, format: text }}\n"


def filtered(stage: int, source: int, words: int = WORDS, extra: str = "") -> str:
    return f"  s{stage}:\n    op: data.filter\n    in: s{source}\n    with: {{ max_words: {words + stage} }}\n{extra}"


def stages_of(shape: str, count: int) -> Iterator[str]:
    if shape == "matrix":
        yield load(0)
        columns = min(count - 1, 1000)
        rows = max(1, (count - 1) // columns)
        yield "  sweep:\n    op: data.filter\n    in: s0\n"
        yield f"    matrix:\n      low: [{', '.join(str(value) for value in range(rows))}]\n"
        yield f"      high: [{', '.join(str(WORDS + value) for value in range(columns))}]\n"
        yield '    with: { min_words: "${matrix.low}", max_words: "${matrix.high}" }\n'
        return
    swept = WIDTH if shape == "main" else 0
    for stage in range(count - swept):
        source = needs(stage, shape)
        if source is None:
            yield load(stage)
            continue
        extra = ""
        if shape == "main":
            extra = "    retry: { attempts: 3, on: [lost, transient], backoff: 10ms }\n"
            if stage % GPU_EVERY == 0:
                extra += "    resources: { gpus: 1 }\n"
        yield filtered(stage, source, extra=extra)
    if swept:
        values = ", ".join(str(WORDS + count + value) for value in range(swept))
        yield f'  sweep:\n    op: data.filter\n    in: s1\n    matrix: {{ words: [{values}] }}\n'
        yield '    with: { max_words: "${matrix.words}" }\n'


def write_pipeline(folder: Path, shape: str, count: int, edit: int | None = None) -> Path:
    """`edit`: the stage whose param differs from the usual."""
    path = folder / "pipeline.yaml"
    with path.open("w") as file:
        file.write("name: bench\nseed: 1\nstages:\n")
        for number, text in enumerate(stages_of(shape, count)):
            if number == edit:
                text = text.replace("max_words: 1", "max_words: 2").replace("format: text", "format: text, max_rows: 9")
            file.write(text)
    return path


def write_peers(folder: Path, shape: str, count: int) -> None:
    with (folder / "build.ninja").open("w") as file:
        file.write("rule step\n  command = echo $number > $out\n")
        for stage in range(count):
            source = needs(stage, shape)
            after = f" out/{source}" if source is not None else ""
            file.write(f"build out/{stage}: step{after}\n  number = {stage}\n")
    wide = f"lambda w: [f'out/{{int(w.n) - {WIDTH}}}'] if int(w.n) >= {WIDTH} else []" if shape == "layered" else "[]"
    (folder / "Snakefile").write_text(
        f"rule all:\n    input: [f'out/{{n}}' for n in range({count})]\n"
        f"rule step:\n    input: {wide}\n    output: 'out/{{n}}'\n    shell: 'echo {{wildcards.n}} > {{output}}'\n"
    )
    with (folder / "dvc.yaml").open("w") as file:
        file.write("stages:\n")
        for stage in range(count):
            source = needs(stage, shape)
            deps = f"    deps: [out/{source}]\n" if source is not None else ""
            file.write(f"  s{stage}:\n    cmd: echo {stage} > out/{stage}\n{deps}    outs: [out/{stage}]\n")
    (folder / "out").mkdir(exist_ok=True)


def write(folder: Path, shape: str, count: int) -> Path:
    """Everything of one graph. Returns the pipeline file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".git").mkdir(exist_ok=True)  # so that `.llmflow` is made here and nowhere above
    loads = {"layered": min(count, WIDTH), "independent": count, "matrix": 1, "main": min(count, WIDTH)}[shape]
    write_rows(folder, loads, {FAILING} if shape == "main" else frozenset())
    if shape in ("layered", "independent"):
        write_peers(folder, shape, count)
    return write_pipeline(folder, shape, count)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path)
    words.add_argument("--stages", type=int, default=1000)
    words.add_argument("--shape", choices=SHAPES, default="layered")
    asked = words.parse_args()
    print(write(asked.folder, asked.shape, asked.stages))


if __name__ == "__main__":
    main()
