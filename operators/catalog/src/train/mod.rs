//! Teaching: from nothing, or from examples.

pub(crate) mod adapter;
pub(crate) mod course;
pub(crate) mod encode;
pub(crate) mod examples;
pub(crate) mod gather;
pub mod pretrain;
pub(crate) mod session;
pub mod settings;
pub mod sft;
pub(crate) mod show;

use llmflow_contract::{Context, Facts, Failure, Known, KnownInput, Needs, PortKind, Work};
use rand::Rng as _;

/// What teaches: chats, prompts with their answers, or documents.
#[derive(Clone, Copy, Debug)]
pub struct Teaching;

impl PortKind for Teaching {
    const ACCEPTS: &'static [&'static str] = &["dataset/chat", "dataset/prompt", "dataset/text"];
}

/// Numbers in [0, 1) with 53 random bits, of the stage's seed and a purpose.
pub(crate) fn uniform(ctx: &Context, purpose: &str) -> impl FnMut() -> f64 + use<> {
    let mut rng = ctx.rng(purpose);
    move || (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// The longest sequence: what was asked, or 1,024 where the model can read as much.
///
/// # Errors
/// `param/range` if the model cannot.
pub(crate) fn longest(asked: Option<u32>, context: u64) -> Result<usize, Failure> {
    const USUAL: u64 = 1024;
    let Some(asked) = asked else { return Ok(context.min(USUAL) as usize) };
    if u64::from(asked) > context {
        let message = format!("sequences of {asked} tokens are longer than the model's context of {context}");
        return Err(Failure::input("param/range", message)
            .param("max_length")
            .help(format!("set `max_length: {context}` or less")));
    }
    Ok(asked as usize)
}

/// Refuses rows of a kind that teaches something else, saying which operator takes them.
///
/// # Errors
/// `plan/kind-mismatch`.
pub(crate) fn check_kinds(known: &Known, port: &str, accepts: &[&str]) -> Result<(), Failure> {
    let wrong = |input: &&KnownInput| !accepts.contains(&input.kind.as_str());
    let Some(other) = known.inputs.get(port).into_iter().flatten().find(wrong) else { return Ok(()) };
    let message = format!("`{port}` takes {}, but `{}` gives {}", accepts.join(" | "), other.stage, other.kind);
    let failure = Failure::input("plan/kind-mismatch", message);
    Err(match other.kind.as_str() {
        "dataset/preference" => failure.help("pairs are learned by `op: align.preference`"),
        "dataset/chat" => failure.help("make pairs first: `op: synth.answer`, `with: {as: preference}`"),
        "dataset/choice" => failure.help("questions with choices are for `op: eval.benchmark`"),
        _ => failure,
    })
}

/// Every licence of the model and the rows, one of each.
pub(crate) fn licences<'a>(facts: impl IntoIterator<Item = &'a Facts>) -> Vec<String> {
    let mut licences = Vec::new();
    for licence in facts.into_iter().flat_map(|facts| &facts.licences) {
        if !licences.contains(licence) {
            licences.push(licence.clone());
        }
    }
    licences
}

/// What is certain of an adapter before it is trained: what its base is, and that it runs as its base does.
pub(crate) fn adapter_facts(known: &Known, ports: &[&str]) -> Facts {
    let model = known.facts("model");
    let inputs = ports.iter().filter_map(|port| known.inputs.get(*port)).flatten();
    let licences = licences(std::iter::once(&model).chain(inputs.map(|input| &input.facts)));
    Facts { base: known.input("model").and_then(|input| input.digest), rows: None, used_for: None, licences, ..model }
}

/// Numbers that a model has where nobody knows: SmolLM2-135M's.
pub(crate) const USUAL_PARAMETERS: u64 = 135_000_000;

/// What training wants of the machine.
///
/// `learned` parameters have a gradient and two moments each; `frozen` ones are read and computed with. A pass keeps
/// about ten times the width of the model for each of 1,024 rows in each block; with 12·width² weights a block and
/// some thirty blocks that is 64 KiB · √weights.
pub(crate) fn needs(known: &Known, frozen: u64, learned: u64, tokens: Option<f64>) -> Needs {
    const PASS: f64 = 64.0 * 1024.0;
    let all = frozen + learned;
    let activations = (PASS * (all as f64).sqrt()) as u64;
    // Small matrices need the gradient of activations alone (4 operations a weight), whole models that of weights too.
    let per_token = 4.0 * frozen as f64 + 6.0 * learned as f64;
    Needs {
        cores: known.machine.cores.clamp(1, 4),
        memory_bytes: (256 << 20) + 8 * frozen + 20 * learned + activations,
        disk_bytes: 4 * learned + (1 << 20),
        work: tokens.map_or(Work::Unknown, |tokens| Work::Flops(tokens * per_token)),
        ..Needs::default()
    }
}

/// Refuses an empty list of layers.
///
/// # Errors
/// `param/range`.
pub(crate) fn check_targets(targets: &settings::Targets) -> Result<(), Failure> {
    if targets.names().is_empty() {
        let failure = Failure::input("param/range", "`lora_target_modules` names no layer");
        return Err(failure.param("lora_target_modules").help("leave it out, or write `all-linear`"));
    }
    Ok(())
}

/// Numbers of an adapter on every linear layer, about: a block of width w has 12·w² weights and small matrices of about
/// 18·w numbers a rank; with some thirty blocks that is 28·√weights.
pub(crate) fn adapter_parameters(frozen: u64, rank: u32) -> u64 {
    (28.0 * (frozen as f64).sqrt()) as u64 * u64::from(rank)
}

/// Tokens to read, about, where the rows are known: 100 each.
pub(crate) fn tokens_ahead(rows: Option<u64>, settings: &settings::Settings) -> Option<f64> {
    const ROW: f64 = 100.0;
    let rows = match settings.max_steps {
        Some(steps) => (steps * settings.batch_size as u64) as f64,
        None => rows? as f64 * settings.epochs,
    };
    Some(rows * ROW)
}
