//! A model that is asked: turns to tokens, tokens to text, texts to scores.
//!
//! Owns: the system line, the border between a context and its continuation, limits of the context, cancellation.
//! Must not know: what is asked, or why. The maths is the model crate's.

use llmflow_contract::{AnyArtifact, Context, Device, Failure, Known, Needs, Numerics, Work};
use llmflow_dataset::{Message, Role};
use llmflow_model::{
    ChatMessage, TextTokenizer,
    sampling::{Control, Event, GenerateConfig, Score, ScoreRequest, generate, score},
    transformer::Decoder,
};

use crate::language_model::{self, failure};

/// A model ready to be asked.
pub(crate) struct Speaker {
    pub tokenizer: TextTokenizer,
    pub decoder: Decoder,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
}

/// What the model said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// White space at both ends taken off.
    pub text: String,
    /// Whether it ended by itself rather than at the limit.
    pub finished: bool,
}

impl Speaker {
    /// Opens a model, a GGUF file, or an adapter with its base.
    pub fn open(artifact: &AnyArtifact) -> Result<Self, Failure> {
        let loaded = language_model::load(artifact)?;
        let decoder = loaded.decoder()?;
        let checkpoint = loaded.checkpoint;
        let mut eos = checkpoint.config.eos.clone();
        for id in checkpoint.tokenizer.eos_ids() {
            if !eos.contains(&id) {
                eos.push(id);
            }
        }
        Ok(Self { tokenizer: checkpoint.tokenizer, decoder, context: checkpoint.config.context, eos })
    }

    /// The conversation as text, up to where the assistant speaks. `system` goes before turns that bring none.
    pub fn prompt(&self, system: Option<&str>, turns: &[Message]) -> Result<String, Failure> {
        self.tokenizer.render(&with_system(system, turns), true).map_err(failure)
    }
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Failure> {
        self.tokenizer.encode(text, false).map_err(failure)
    }
    /// Whether the prompt leaves room for `max_new_tokens` more.
    pub fn fits(&self, prompt: &[u32], max_new_tokens: usize) -> bool {
        !prompt.is_empty() && prompt.len() + max_new_tokens <= self.context
    }

    /// Answers every prompt, in order. `on_done` hears how many are whole.
    pub fn say(
        &self,
        prompts: &[Vec<u32>],
        config: &GenerateConfig,
        ctx: &Context,
        on_done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Said>, Failure> {
        let mut done = 0;
        let completions = generate(&self.decoder, prompts, config, &mut |event| {
            if let Event::Done { .. } = event {
                done += 1;
                on_done(done);
            }
            if ctx.cancelled() { Control::Stop } else { Control::Continue }
        })
        .map_err(failure)?;
        let said = completions.into_iter().map(|completion| {
            let text = self.tokenizer.decode(&completion.tokens, true).map_err(failure)?;
            Ok(Said { text: text.trim().to_owned(), finished: completion.finished })
        });
        said.collect()
    }

    /// The continuation's tokens after the context: both are encoded together, and the continuation is what follows
    /// the tokens they share with the context alone. Cut from the left to the context length.
    ///
    /// Returns the request, and whether it was cut.
    pub fn continuation(&self, context: &str, continuation: &str) -> Result<(ScoreRequest, bool), Failure> {
        let before = self.encode(context)?;
        let tokens = self.encode(&format!("{context}{continuation}"))?;
        let opening = self.tokenizer.bos().or(self.eos.first().copied()).unwrap_or_default();
        Ok(request_of(&before, tokens, opening, self.context))
    }

    /// ln p of every scored token. `on_done` hears how many requests are done.
    pub fn score(
        &self,
        requests: &[ScoreRequest],
        batch: usize,
        ctx: &Context,
        on_done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Score>, Failure> {
        score(&self.decoder, requests, batch, &mut |done| {
            on_done(done);
            !ctx.cancelled()
        })
        .map_err(failure)
    }
}

/// Turns as templates read them, the system line first unless they bring their own.
pub(crate) fn with_system(system: Option<&str>, turns: &[Message]) -> Vec<ChatMessage> {
    let brings_own = turns.first().is_some_and(|turn| turn.role == Role::System);
    let line = system.filter(|_| !brings_own).map(|system| ChatMessage::new("system", system));
    let turns = turns.iter().map(|turn| ChatMessage::new(turn.role.name(), turn.content.as_str()));
    line.into_iter().chain(turns).collect()
}

/// The sum of ln p, in f64.
pub(crate) fn total(score: &Score) -> f64 {
    score.logprobs.iter().map(|logprob| f64::from(*logprob)).sum()
}

/// What a stage that asks a model wants of the machine: weights twice (as read, as computed with) and room to work.
pub(crate) fn needs(known: &Known, rows: Option<u64>) -> Needs {
    let parameters = known.facts("model").parameters.unwrap_or(135_000_000);
    Needs {
        cores: known.machine.cores.clamp(1, 4),
        memory_bytes: (512 << 20) + 8 * parameters,
        work: rows.map_or(Work::Unknown, Work::Rows),
        ..Needs::default()
    }
}

/// Equal bytes on every CPU, for all that a model computes in f32.
pub(crate) fn numerics() -> Numerics {
    Numerics::Seeded { device: Device::Cpu, dtype: "f32".into() }
}

/// `opening` stands before tokens that would otherwise have no context at all.
fn request_of(before: &[u32], mut tokens: Vec<u32>, opening: u32, limit: usize) -> (ScoreRequest, bool) {
    let mut from = before.iter().zip(&tokens).take_while(|(one, other)| one == other).count();
    if from == 0 {
        tokens.insert(0, opening);
        from = 1;
    }
    let cut = tokens.len().saturating_sub(limit.max(2));
    tokens.drain(..cut);
    (ScoreRequest { tokens, from: from.saturating_sub(cut).max(1) }, cut > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_continuation_is_what_follows_the_common_tokens() {
        // The border token 3 merged with what follows into 9: it belongs to the continuation.
        let (request, cut) = request_of(&[1, 2, 3], vec![1, 2, 9, 4], 0, 10);
        assert_eq!((request.tokens, request.from, cut), (vec![1, 2, 9, 4], 2, false));
    }

    #[test]
    fn a_long_context_is_cut_from_the_left_and_an_empty_one_gets_an_opening() {
        let (request, cut) = request_of(&[1, 2, 3, 4], vec![1, 2, 3, 4, 5], 0, 3);
        assert_eq!((request.tokens, request.from, cut), (vec![3, 4, 5], 2, true));
        let (request, _) = request_of(&[], vec![5, 6], 7, 10);
        assert_eq!((request.tokens, request.from), (vec![7, 5, 6], 1));
    }

    #[test]
    fn a_system_line_of_the_rows_own_is_left_alone() {
        let own = [Message::system("mine"), Message::user("hello")];
        assert_eq!(with_system(Some(""), &own)[0].content, "mine");
        let none = [Message::user("hello")];
        assert_eq!(with_system(Some(""), &none).len(), 2);
        assert_eq!(with_system(None, &none).len(), 1);
    }
}
