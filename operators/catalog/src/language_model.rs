//! Opens whatever is a language model: a folder, a GGUF file, an adapter with its base.
//!
//! Owns: kinds to checkpoints, checkpoints to facts, errors of the maths to [`Failure`].
//! Must not know: what any operator does with a model.

use std::path::PathBuf;

use llmflow_contract::{AnyArtifact, Class, Digest, Facts, Failure, Place};
use llmflow_model::{Checkpoint, ModelError, transformer::Decoder, weights::Adapter};

/// A model in memory, f32, adapters merged.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub checkpoint: Checkpoint,
}

impl Loaded {
    /// The weights in the order that computes; they are copied.
    ///
    /// # Errors
    /// The failure of [`failure`].
    pub fn decoder(&self) -> Result<Decoder, Failure> {
        Decoder::new(&self.checkpoint.config, &self.checkpoint.weights).map_err(failure)
    }
}

/// Opens a `model`, a `gguf`, or an `adapter` merged with its base.
///
/// # Errors
/// The failure of [`failure`]; `artifact/no-file` for a damaged artifact; a bug for another kind.
pub fn load(artifact: &AnyArtifact) -> Result<Loaded, Failure> {
    let checkpoint = match artifact.kind().as_str() {
        "model" => Checkpoint::open(artifact.folder()).map_err(failure)?,
        "gguf" => Checkpoint::open(&gguf_file(artifact)?).map_err(failure)?,
        "adapter" => {
            let mut base = load(artifact.reference("base")?)?.checkpoint;
            let adapter = Adapter::open(artifact.folder()).map_err(failure)?;
            adapter.merge_into(&mut base.weights).map_err(failure)?;
            base
        }
        other => return Err(Failure::bug(format!("a {other} is no language model"))),
    };
    Ok(Loaded { checkpoint })
}

/// The one GGUF file of a `gguf` artifact.
///
/// # Errors
/// `artifact/no-file`.
pub fn gguf_file(artifact: &AnyArtifact) -> Result<PathBuf, Failure> {
    let file = artifact.manifest.files.iter().find(|file| file.path.ends_with(".gguf"));
    artifact.file(file.map_or("model.gguf", |file| file.path.as_str()))
}

/// What is known of a model without opening it again.
pub fn facts_of(checkpoint: &Checkpoint, dtype: &str, licences: Vec<String>) -> Facts {
    let tokenizer = &checkpoint.tokenizer;
    Facts {
        tokenizer: Some(Digest::of_json(tokenizer.json())),
        chat_template: tokenizer.template().map(|template| Digest::of(template.as_bytes())),
        architecture: Some("LlamaForCausalLM".into()),
        parameters: Some(checkpoint.weights.parameters()),
        vocab: Some(checkpoint.config.vocab as u64),
        context: Some(checkpoint.config.context as u64),
        dtype: Some(dtype.to_owned()),
        licences,
        ..Facts::default()
    }
}

/// An error of the maths as the engine knows it.
pub fn failure(error: ModelError) -> Failure {
    let at = |path: &PathBuf| Place { file: path.clone(), line: None, column: None };
    let message = error.to_string();
    match &error {
        ModelError::Io { doing, path, source } => Failure::io(doing, path, source),
        ModelError::Truncated { path, .. } => Failure::input("model/truncated", message)
            .at(at(path))
            .help("the file was not copied to its end; fetch it again"),
        ModelError::Malformed { path, .. } => Failure::input("model/malformed", message).at(at(path)),
        ModelError::Unsupported { path, .. } => Failure::input("model/unsupported", message).at(at(path)),
        ModelError::MissingTensor { .. } | ModelError::Shape { .. } | ModelError::Heads { .. } => {
            Failure::input("model/shape", message)
        }
        ModelError::Invalid(_) => Failure::input("model/invalid", message),
        ModelError::Tokenizer(_) => Failure::input("model/tokenizer", message),
        ModelError::Template(_) => Failure::input("model/chat-template", message),
        ModelError::Cancelled => Failure::cancelled(),
        ModelError::Tensor(_) => Failure::new(Class::Bug, "bug", message),
    }
}
