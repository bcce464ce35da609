"""Do the tools that gather lineage take what `llmflow lineage` writes?

    python tests/peers/lineage_elsewhere.py LLMFLOW FOLDER     in an environment with openlineage-python and rocrate

FOLDER is one in which a pipeline ran. Every event is built again from the classes of openlineage-python, which know each
field of each facet, and must come out as it went in; a crate is read with the rocrate package.
"""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from openlineage.client import generated
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.generated import parent_run, schema_dataset
from openlineage.client.serde import Serde
from rocrate.rocrate import ROCrate

OURS = ("_producer", "_schemaURL")
failed = False


def tell(claim: str, holds: bool, figures: str) -> None:
    global failed
    failed |= not holds
    print(f"{'ok  ' if holds else 'FAIL'} {claim}: {figures}", flush=True)


def facet_classes() -> dict[str, type]:
    """Every facet class of the package by its schema."""
    found = {}
    for module in pkgutil.iter_modules(generated.__path__):
        module = importlib.import_module(f"{generated.__name__}.{module.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if "Facet" in kind.__name__ and hasattr(kind, "_get_schema"):
                found[kind._get_schema()] = kind
    return found


CLASSES = facet_classes()


def facet(raw: dict):
    """A facet as the package's own class; a field that the class does not know is an error."""
    fields = {name: value for name, value in raw.items() if name not in OURS}
    kind = CLASSES[raw["_schemaURL"]]
    if kind is parent_run.ParentRunFacet:
        fields = {"run": parent_run.Run(**fields["run"]), "job": parent_run.Job(**fields["job"])}
    if kind is schema_dataset.SchemaDatasetFacet:
        fields = {"fields": [schema_dataset.SchemaDatasetFacetFields(**field) for field in fields["fields"]]}
    return kind(**fields, producer=raw["_producer"])


def facets(raw: dict) -> dict:
    return {name: facet(value) for name, value in raw.items()}


def dataset(kind: type, raw: dict):
    own = {name: facets(value) if name.endswith("acets") else value for name, value in raw.items()}
    return kind(**own)


def rebuilt(raw: dict) -> RunEvent:
    return RunEvent(
        eventType=RunState[raw["eventType"]],
        eventTime=raw["eventTime"],
        producer=raw["producer"],
        run=Run(runId=raw["run"]["runId"], facets=facets(raw["run"]["facets"])),
        job=Job(namespace=raw["job"]["namespace"], name=raw["job"]["name"], facets=facets(raw["job"]["facets"])),
        inputs=[dataset(InputDataset, item) for item in raw["inputs"]],
        outputs=[dataset(OutputDataset, item) for item in raw["outputs"]],
    )


def without_defaults(value):
    """Lists and maps that are empty say nothing; the package adds them, and fields we do not use."""
    if isinstance(value, dict):
        kept = {name: without_defaults(item) for name, item in value.items() if name != "_deleted"}
        return {name: item for name, item in kept.items() if item not in (None, {}, [])}
    return [without_defaults(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    llmflow, folder = sys.argv[1:]
    run = lambda *words: subprocess.run([llmflow, *words], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [json.loads(line) for line in run("lineage", "@", "--format", "openlineage").splitlines()]
    same = sum(without_defaults(Serde.to_dict(rebuilt(line))) == without_defaults(line) for line in lines)
    tell("openlineage-python builds every event and writes it as it was", same == len(lines) > 0, f"{same} of {len(lines)}")

    states: dict[str, list[str]] = {}
    for line in lines:
        states.setdefault(line["run"]["runId"], []).append(line["eventType"])
    whole = [seen for seen in states.values() if seen[0] == "START" and seen[1:] in (["COMPLETE"], ["FAIL"], ["ABORT"])]
    tell("each run starts once and ends once", len(whole) == len(states), f"{len(whole)} of {len(states)}")
    times = [datetime.fromisoformat(line["eventTime"].replace("Z", "+00:00")) for line in lines]
    tell("events stand in the order of their times", times == sorted(times), f"{len(times)}")
    made = {(item["namespace"], item["name"]) for line in lines for item in line["outputs"]}
    read = {(item["namespace"], item["name"]) for line in lines for item in line["inputs"]}
    tell("whatever is read was made", read <= made, f"{len(read)} read, {len(made)} made")
    broken = json.loads(json.dumps(lines[0]))
    next(iter(broken["run"]["facets"].values()))["invented"] = 1
    try:
        rebuilt(broken)
        refused = False
    except TypeError:
        refused = True
    tell("an invented field would have been refused", refused, "the negative control")

    with tempfile.TemporaryDirectory() as work:
        to = Path(work) / "crate"
        run("lineage", "@", "--format", "ro-crate", "--to", str(to))
        crate = ROCrate(to)
        files = [entity for entity in crate.data_entities if entity.type == "File" or "File" in entity.type]
        missing = [entity.id for entity in files if not (to / entity.id).is_file()]
        tell("rocrate reads the crate, and every file it names is there", files and not missing, f"{len(files)} files {missing}")
        actions = [entity for entity in crate.contextual_entities if entity.type == "CreateAction"]
        dangling = [ref for action in actions for ref in references(action) if crate.get(ref) is None]
        tell("every action's inputs and results are in it", actions and not dangling, f"{len(actions)} actions {dangling[:3]}")
    sys.exit(1 if failed else 0)


def references(action) -> list[str]:
    raw = action.properties()
    items = [item for name in ("object", "result", "instrument") for item in as_list(raw.get(name))]
    return [item["@id"] for item in items if "@id" in item]


def as_list(value) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


main()
