//! Opens whatever is a language model: a folder, a GGUF file, an adapter with its base.
//!
//! Owns: kinds to checkpoints, checkpoints to facts, errors of the maths to [`Failure`].
//! Must not know: what any operator does with a model.

use std::path::PathBuf;

use llmflow_contract::{AnyArtifact, Class, Digest, Facts, Failure, Known, Place, StageId};
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
        architecture: Some(ARCHITECTURE.into()),
        parameters: Some(checkpoint.weights.parameters()),
        vocab: Some(checkpoint.config.vocab as u64),
        context: Some(checkpoint.config.context as u64),
        dtype: Some(dtype.to_owned()),
        licences,
        ..Facts::default()
    }
}

/// The architecture that is computed with here, as `config.json` names it.
const ARCHITECTURE: &str = "LlamaForCausalLM";

/// Refuses the model of a stage as soon as it is known to be one that cannot be computed with here.
///
/// # Errors
/// `model/unsupported` for another architecture, `model/no-tokenizer`.
pub fn check(known: &Known) -> Result<(), Failure> {
    let Some((stage, facts)) = settled(known) else { return Ok(()) };
    if let Some(other) = facts.architecture.as_deref().filter(|name| *name != ARCHITECTURE) {
        let message = format!("`{stage}` gives a {other}; {ARCHITECTURE} alone can be computed with here");
        return Err(Failure::input("model/unsupported", message)
            .help("use it with `op: run.command` and a program that knows it"));
    }
    if facts.tokenizer.is_none() {
        return Err(Failure::input("model/no-tokenizer", format!("the model of `{stage}` has no tokenizer"))
            .help("put `tokenizer.json` and `tokenizer_config.json` beside its weights"));
    }
    Ok(())
}

/// As [`check`], for a stage that reads turns: those of the port `rows`, or its own where that is `None`.
///
/// # Errors
/// `model/no-template` too.
pub fn check_turns(known: &Known, rows: Option<&str>) -> Result<(), Failure> {
    const TURNS: [&str; 3] = ["dataset/chat", "dataset/prompt", "dataset/preference"];
    check(known)?;
    let Some((stage, facts)) = settled(known) else { return Ok(()) };
    let has_turns = rows.is_none_or(|port| {
        known.inputs.get(port).into_iter().flatten().any(|input| TURNS.contains(&input.kind.as_str()))
    });
    if has_turns && facts.chat_template.is_none() {
        return Err(Failure::input("model/no-template", format!("the model of `{stage}` has no chat template"))
            .help("turns are written as `chat_template` in `tokenizer_config.json` says; documents need none"));
    }
    Ok(())
}

/// The model and its facts once it is there: what is then absent, it has not. Its architecture is always told.
fn settled(known: &Known) -> Option<(&StageId, &Facts)> {
    let model = known.input("model").filter(|model| model.digest.is_some() && model.facts.architecture.is_some())?;
    Some((&model.stage, &model.facts))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::toy,
        testing::{TestHost, known},
    };
    use llmflow_dataset::RowKind;

    #[test]
    fn a_model_that_cannot_do_the_work_is_refused_once_it_is_there() {
        let host = TestHost::new();
        let mut model = toy::model(&host);
        let whole = facts_of(&load(&model).unwrap().checkpoint, "float32", Vec::new());
        let (chats, texts) = (host.dataset(RowKind::Chat, []), host.dataset(RowKind::Text, []));
        let mut code = |facts: Facts, rows: &AnyArtifact| {
            model.manifest.facts = facts;
            check_turns(&known(host.base(), &[("model", &model), ("data", rows)]), Some("data"))
                .err()
                .map(|found| found.code)
        };
        assert_eq!(code(whole.clone(), &chats), None);
        let other = Facts { architecture: Some("ByteBigram".into()), ..whole.clone() };
        assert_eq!(code(other, &texts).as_deref(), Some("model/unsupported"));
        let mute = Facts { chat_template: None, ..whole.clone() };
        assert_eq!(code(mute.clone(), &chats).as_deref(), Some("model/no-template"));
        assert_eq!(code(mute.clone(), &texts), None, "documents are written as they are");
        assert_eq!(code(Facts { tokenizer: None, ..whole }, &texts).as_deref(), Some("model/no-tokenizer"));
        let mut later = known(host.base(), &[("model", &model), ("data", &chats)]);
        later.inputs.get_mut("model").unwrap()[0] =
            llmflow_contract::KnownInput { digest: None, facts: mute, ..later.inputs["model"][0].clone() };
        check_turns(&later, Some("data")).unwrap();
    }
}
