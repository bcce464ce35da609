//! A run as an RO-Crate: a folder that says in JSON-LD which file was made from what, by which program, when.
//!
//! Owns: `ro-crate-metadata.json` after the Process and Workflow Run Crate profiles. The crate holds the pipeline file and
//! what was published or what no stage made anything of; the others are named by digest, size and kind.
//! Source: <https://www.researchobject.org/ro-crate/specification/1.1/>, <https://www.researchobject.org/workflow-run-crate/>.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use llmflow_contract::{Digest, Failure, Manifest, Port, Registry, StageId};
use serde_json::{Value, json};

use super::{Lineage, OutputRow, PipelineRow, RunRow, StageRow};
use crate::{
    event::{RunId, RunStatus},
    home::Home,
    pipeline::{self, SIDE_PORTS, SourceFile, Target},
    store::{Store, is_damage},
};

const METADATA: &str = "ro-crate-metadata.json";
const PIPELINE: &str = "pipeline.yaml";
/// Of a rehearsal, beside its params.
const LIMIT: &str = "#limit";

/// What a crate came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Crate {
    pub path: PathBuf,
    pub files: usize,
    pub bytes: u64,
    /// The outputs that are described alone: stages were made of them, and they were not published. A main one goes by its
    /// stage.
    pub left_out: Vec<String>,
}

/// Where the crate's run lies: its row, its results, and the operators that its file names.
pub struct Place<'a> {
    pub lineage: &'a Lineage,
    pub store: &'a Store,
    pub home: &'a Home,
    pub registry: &'a Registry,
}

/// Writes a run into a new folder, whole or not at all.
///
/// # Errors
/// `export/exists` if there is something at `to`; `store/no-artifact` for a result that is gone; of the disk.
pub async fn ro_crate(place: Place<'_>, run: &RunId, to: &Path) -> Result<Crate, Failure> {
    let Place { store, home, .. } = place;
    if to.exists() {
        let message = format!("`{}` exists; a crate is a new folder", to.display());
        return Err(Failure::input("export/exists", message).help("name a folder that does not exist yet"));
    }
    let mut description = Description::of(&place, run).await?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| Failure::io("making", parent, &error))?;
    let aside = tempfile::Builder::new()
        .prefix(".llmflow-crate-")
        .tempdir_in(parent)
        .map_err(|error| Failure::io("making", parent, &error))?;
    let root = aside.path().join("crate");
    fs::create_dir(&root).map_err(|error| Failure::io("making", &root, &error))?;
    let mut made = Crate { path: to.to_owned(), files: 2, bytes: 0, left_out: Vec::new() };
    let published = published_by(&place, run, &description.file).await?;
    let (kept, others) = description.sorted(&published);
    for given in kept {
        if description.folders.contains_key(&given.digest) {
            continue;
        }
        let folder = format!("artifacts/{}", safe(&format!("{}.{}", given.stage, given.port)));
        let artifact = store.artifact(&given.digest, &home.work()).await;
        let artifact = artifact.map_err(|failure| named(failure, run, &given))?;
        let manifest = &description.manifests[&given.digest];
        copy_files(&artifact.root, manifest, &root.join(&folder))?;
        made.files += manifest.files.len();
        made.bytes += manifest.size_bytes();
        description.folders.insert(given.digest, folder);
    }
    let left = others.iter().filter(|given| !description.folders.contains_key(&given.digest));
    made.left_out = left.map(Given::name).collect();
    let graph = serde_json::to_vec_pretty(&description.metadata())
        .map_err(|error| Failure::bug(format!("crate metadata: {error}")))?;
    for (name, bytes) in [(METADATA, graph.as_slice()), (PIPELINE, description.file.text.as_bytes())] {
        let path = root.join(name);
        fs::write(&path, bytes).map_err(|error| Failure::io("writing", &path, &error))?;
    }
    fs::rename(&root, to).map_err(|error| Failure::io("placing", to, &error))?;
    Ok(made)
}

/// What a run published: stages with their ports, none for the main one. What it gives follows from its file, read again; of one
/// that this program reads otherwise, what it still finds.
async fn published_by(
    place: &Place<'_>,
    run: &RunId,
    file: &PipelineRow,
) -> Result<BTreeSet<(StageId, Option<Port>)>, Failure> {
    let written: BTreeSet<PathBuf> = place.lineage.published_by(run).await?.into_iter().collect();
    if written.is_empty() {
        return Ok(BTreeSet::new());
    }
    let source = SourceFile::new(&file.path, &file.text);
    let base = source.base().to_owned();
    let loaded = pipeline::load(source, &file.overrides, place.registry);
    let is_written = |path: &str| match pipeline::is_remote(path) {
        true => written.contains(Path::new(path)),
        false => written.contains(&base.join(path)),
    };
    let items = loaded.pipeline.publish.into_iter();
    let items = items.filter(|item| item.paths.iter().any(|path| is_written(&path.value)));
    let output = |target| match target {
        Target::Output { stage, port } => Some((stage, port)),
        Target::Report => None,
    };
    Ok(items.filter_map(|item| output(item.target)).collect())
}

/// A result that is gone goes by the name it has in its run.
fn named(failure: Failure, run: &RunId, given: &Given) -> Failure {
    if !is_damage(&failure) {
        return failure;
    }
    let message = format!("`{}.{}` of run `{run}` is no longer whole in the store", given.stage, given.port);
    Failure { message, ..failure }
}

fn copy_files(root: &Path, manifest: &Manifest, to: &Path) -> Result<(), Failure> {
    for file in &manifest.files {
        let target = to.join(&file.path);
        let folder = target.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(|error| Failure::io("making", folder, &error))?;
        fs::copy(root.join(&file.path), &target).map_err(|error| Failure::io("copying", &target, &error))?;
    }
    Ok(())
}

/// A name that is one part of a path, everywhere.
fn safe(name: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '=' | '@');
    name.chars().map(|c| if keep(c) { c } else { '_' }).collect()
}

/// What a crate describes.
struct Description {
    run: RunRow,
    file: PipelineRow,
    stages: Vec<StageRow>,
    manifests: BTreeMap<Digest, Manifest>,
    /// Where in the crate the files of an artifact lie.
    folders: BTreeMap<Digest, String>,
}

/// An output that a stage gave.
struct Given {
    stage: StageId,
    port: Port,
    digest: Digest,
    is_main: bool,
}

impl Given {
    /// `rows`, `split.test`.
    fn name(&self) -> String {
        if self.is_main { self.stage.to_string() } else { format!("{}.{}", self.stage, self.port) }
    }
}

impl Description {
    /// # Errors
    /// `store/no-artifact` for a result that is gone.
    async fn of(place: &Place<'_>, run: &RunId) -> Result<Self, Failure> {
        let mut description = Self {
            run: place.lineage.run(run).await?,
            file: place.lineage.pipeline_of(run).await?,
            stages: place.lineage.stages_of_run(run).await?,
            manifests: BTreeMap::new(),
            folders: BTreeMap::new(),
        };
        for given in description.results() {
            let manifest = place.store.manifest(&given.digest).await;
            let manifest = manifest.map_err(|failure| named(failure, run, &given))?;
            description.manifests.insert(given.digest, manifest);
        }
        Ok(description)
    }

    /// What the crate holds, what was published first, and what it describes alone.
    fn sorted(&self, published: &BTreeSet<(StageId, Option<Port>)>) -> (Vec<Given>, Vec<Given>) {
        // Who reports on what it read made nothing of it.
        let is_result = |output: &OutputRow| output.digest.is_some() && !SIDE_PORTS.contains(&output.kind.as_str());
        let makers = self.stages.iter().filter(|stage| stage.outputs.iter().any(is_result));
        let read: BTreeSet<(&StageId, &Port, Digest)> = makers
            .flat_map(|stage| stage.inputs.iter())
            .filter_map(|input| Some((&input.from_stage, &input.from_port, input.digest?)))
            .collect();
        let is_published = |given: &Given| {
            let is_as = |port| published.contains(&(given.stage.clone(), port));
            is_as(Some(given.port.clone())) || given.is_main && is_as(None)
        };
        let (mut kept, others): (Vec<_>, Vec<_>) = self.results().into_iter().partition(is_published);
        let is_read = |given: &Given| read.contains(&(&given.stage, &given.port, given.digest));
        let (left_out, last): (Vec<_>, Vec<_>) = others.into_iter().partition(is_read);
        kept.extend(last);
        (kept, left_out)
    }

    /// What the stages gave, traces apart.
    fn results(&self) -> Vec<Given> {
        let outputs = self.stages.iter().flat_map(|stage| stage.outputs.iter().enumerate().map(move |it| (stage, it)));
        let given = |(stage, (index, output)): (&StageRow, (usize, &OutputRow))| {
            let (stage, port, digest) = (stage.stage.clone(), output.port.clone(), output.digest?);
            let is_main = index == 0 && !SIDE_PORTS.contains(&port.as_str());
            Some(Given { stage, port, digest, is_main })
        };
        outputs.filter(|(_, (_, output))| output.port.as_str() != "trace").filter_map(given).collect()
    }

    fn metadata(&self) -> Value {
        let mut graph = vec![self.descriptor(), self.root(), self.workflow()];
        graph.push(json!({
            "@id": "#llmflow", "@type": "SoftwareApplication", "name": "LLMflow", "softwareVersion": self.run.version,
        }));
        graph.push(json!({ "@id": "#yaml", "@type": "ComputerLanguage", "name": "LLMflow pipeline (YAML)" }));
        graph.push(self.whole_run());
        graph.extend(self.run.limit.map(|limit| {
            json!({ "@id": LIMIT, "@type": "PropertyValue", "name": "--limit", "value": limit.to_string(),
                    "description": "a rehearsal: every bound on how much is done was lowered to this" })
        }));
        graph.extend(self.file.params.iter().map(|(name, value)| {
            json!({ "@id": format!("#param-{}", safe(name)), "@type": "PropertyValue", "name": name, "value": value.to_string() })
        }));
        let operators: BTreeSet<(&str, u32)> =
            self.stages.iter().map(|stage| (stage.operator.as_str(), stage.version)).collect();
        graph.extend(operators.into_iter().map(|(name, version)| {
            json!({ "@id": format!("#{name}"), "@type": "SoftwareApplication", "name": name,
                    "softwareVersion": version.to_string(), "isPartOf": { "@id": "#llmflow" } })
        }));
        graph.extend(self.stages.iter().filter(|stage| stage.key.is_some()).map(|stage| self.action(stage)));
        for (digest, manifest) in &self.manifests {
            graph.extend(self.artifact(digest, manifest));
        }
        json!({ "@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph })
    }

    fn descriptor(&self) -> Value {
        json!({
            "@id": METADATA, "@type": "CreativeWork", "about": { "@id": "./" },
            "conformsTo": { "@id": "https://w3id.org/ro/crate/1.1" },
        })
    }

    fn root(&self) -> Value {
        let mut parts = vec![json!({ "@id": PIPELINE })];
        parts.extend(self.folders.values().map(|folder| json!({ "@id": format!("{folder}/") })));
        let licences: BTreeSet<&String> =
            self.manifests.values().flat_map(|manifest| &manifest.facts.licences).collect();
        let licence = licences.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let (run, pipeline) = (&self.run.run, &self.run.pipeline);
        let rehearsal = self.run.limit.map(|limit| format!(" A rehearsal: --limit {limit}.")).unwrap_or_default();
        json!({
            "@id": "./", "@type": "Dataset",
            "name": format!("{pipeline} · run {run}"),
            "description": format!("What run {run} of the pipeline {pipeline} made, from what, and how.{rehearsal}"),
            "datePublished": self.ended(),
            "license": if licence.is_empty() { "not stated".to_owned() } else { licence },
            "hasPart": parts, "mainEntity": { "@id": PIPELINE }, "mentions": [{ "@id": "#run" }],
            "conformsTo": [
                { "@id": "https://w3id.org/ro/wfrun/process/0.5" }, { "@id": "https://w3id.org/ro/wfrun/workflow/0.5" },
            ],
        })
    }

    fn workflow(&self) -> Value {
        json!({
            "@id": PIPELINE, "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
            "name": self.run.pipeline, "programmingLanguage": { "@id": "#yaml" },
            "contentSize": self.file.text.len().to_string(), "encodingFormat": "application/yaml",
        })
    }

    fn whole_run(&self) -> Value {
        let results: Vec<Value> = self.folders.keys().map(|digest| json!({ "@id": self.id(digest) })).collect();
        let set = self.file.params.keys().map(|name| format!("#param-{}", safe(name)));
        let set = set.chain(self.run.limit.map(|_| LIMIT.to_owned()));
        let set: Vec<Value> = set.map(|id| json!({ "@id": id })).collect();
        json!({
            "@id": "#run", "@type": "CreateAction", "name": format!("run {}", self.run.run),
            "instrument": { "@id": PIPELINE }, "agent": { "@id": "#llmflow" },
            "startTime": moment(self.run.started_ms), "endTime": self.ended(),
            "actionStatus": status(self.run.status == RunStatus::Done), "object": set, "result": results,
        })
    }

    fn action(&self, stage: &StageRow) -> Value {
        let read: Vec<Value> =
            stage.inputs.iter().filter_map(|input| Some(json!({ "@id": self.id(&input.digest?) }))).collect();
        let gave = stage.outputs.iter().filter(|output| output.port.as_str() != "trace");
        let gave: Vec<Value> = gave.filter_map(|output| Some(json!({ "@id": self.id(&output.digest?) }))).collect();
        json!({
            "@id": format!("#stage-{}", safe(stage.stage.as_str())), "@type": "CreateAction",
            "name": stage.stage, "instrument": { "@id": format!("#{}", stage.operator) },
            "isPartOf": { "@id": "#run" }, "object": read, "result": gave, "description": stage.summary,
            "actionStatus": status(matches!(stage.status.as_str(), "ran" | "cached" | "refused")),
            "identifier": stage.key.map(|key| format!("blake3:{key}")),
        })
    }

    /// An artifact, and its files where the crate holds them.
    fn artifact(&self, digest: &Digest, manifest: &Manifest) -> Vec<Value> {
        let folder = self.folders.get(digest);
        let files = manifest.files.iter().filter_map(|file| {
            Some(json!({
                "@id": format!("{}/{}", folder?, file.path), "@type": "File", "name": file.path,
                "contentSize": file.size_bytes.to_string(), "identifier": format!("blake3:{}", file.digest),
            }))
        });
        let files: Vec<Value> = files.collect();
        let parts: Vec<Value> = files.iter().map(|file| json!({ "@id": file["@id"] })).collect();
        let artifact = json!({
            "@id": self.id(digest), "@type": "Dataset", "name": manifest.kind.as_str(),
            "additionalType": manifest.kind.as_str(), "identifier": format!("blake3:{digest}"),
            "contentSize": manifest.size_bytes().to_string(), "hasPart": parts,
        });
        std::iter::once(artifact).chain(files).collect()
    }

    fn id(&self, digest: &Digest) -> String {
        match self.folders.get(digest) {
            Some(folder) => format!("{folder}/"),
            None => format!("#artifact-{digest}"),
        }
    }

    fn ended(&self) -> String {
        let millis = self.run.seconds.unwrap_or_default() * 1000.0;
        moment(self.run.started_ms + millis.max(0.0) as u64)
    }
}

fn status(is_done: bool) -> Value {
    let name = if is_done { "CompletedActionStatus" } else { "FailedActionStatus" };
    json!({ "@id": format!("http://schema.org/{name}") })
}

/// ISO 8601, UTC.
fn moment(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map(|at| at.to_string()).unwrap_or_default()
}
