//! Batched generation with a cache of keys and values.

use rayon::prelude::*;

use super::choose::{Choice, choose, uniform};
use crate::{
    ModelError, Result,
    transformer::{Cache, Decoder},
};

/// How to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateConfig {
    /// Most tokens a completion gets.
    pub max_new_tokens: usize,
    /// 0 takes the likeliest token; the first of equals.
    pub temperature: f32,
    /// Share of probability to draw from; 1 is all.
    pub top_p: f32,
    /// Likeliest tokens to draw from; 0 is all.
    pub top_k: usize,
    /// Tokens that end a completion; the one that did is not part of it.
    pub eos: Vec<u32>,
    /// Sequences decoded at once.
    pub batch_size: usize,
    pub seed: u64,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self { max_new_tokens: 64, temperature: 0.0, top_p: 1.0, top_k: 0, eos: Vec::new(), batch_size: 16, seed: 0 }
    }
}

/// What happened while generating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A prompt's completion grew by a token.
    Token { prompt: usize, token: u32 },
    /// A prompt's completion is whole.
    Done { prompt: usize },
}

/// What to do after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Continue,
    /// End this completion here: a stop text was found.
    Finish,
    /// End everything.
    Stop,
}

/// A completion of one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// Without the token that ended it.
    pub tokens: Vec<u32>,
    /// Whether it ended by itself (an end token, or [`Control::Finish`]) rather than at a limit.
    pub finished: bool,
    /// ln p of each token under the model.
    pub logprobs: Vec<f32>,
}

struct Active {
    prompt: usize,
    cache: Cache,
    last: u32,
}

/// Completes every prompt; results in the order of the prompts.
///
/// # Errors
/// [`ModelError::Invalid`] for an empty prompt, a token outside the vocabulary, or a prompt that fills the context;
/// [`ModelError::Cancelled`] after [`Control::Stop`].
pub fn generate(
    decoder: &Decoder,
    prompts: &[Vec<u32>],
    config: &GenerateConfig,
    on: &mut dyn FnMut(Event) -> Control,
) -> Result<Vec<Completion>> {
    if prompts.iter().any(Vec::is_empty) {
        return Err(ModelError::Invalid("a prompt has no tokens".into()));
    }
    let mut completions = vec![Completion::default(); prompts.len()];
    if config.max_new_tokens == 0 {
        return Ok(completions);
    }
    let mut waiting = 0..prompts.len();
    let mut active: Vec<Active> = Vec::new();
    loop {
        let free = config.batch_size.max(1) - active.len();
        let fresh: Vec<usize> = waiting.by_ref().take(free).collect();
        if !fresh.is_empty() {
            let texts: Vec<&[u32]> = fresh.iter().map(|index| prompts[*index].as_slice()).collect();
            let (caches, logits) = decoder.read(&texts)?;
            let begun = fresh.into_iter().zip(caches).map(|(prompt, cache)| Active { prompt, cache, last: 0 });
            active.extend(advance(begun.collect(), &logits, config, decoder, &mut completions, on)?);
        }
        if active.is_empty() {
            if waiting.is_empty() {
                return Ok(completions);
            }
            continue;
        }
        let tokens: Vec<u32> = active.iter().map(|row| row.last).collect();
        let mut caches: Vec<&mut Cache> = active.iter_mut().map(|row| &mut row.cache).collect();
        let logits = decoder.step(&tokens, &mut caches)?;
        active = advance(active, &logits, config, decoder, &mut completions, on)?;
    }
}

/// Chooses a token for each row; gives back the rows that go on.
fn advance(
    rows: Vec<Active>,
    logits: &[f32],
    config: &GenerateConfig,
    decoder: &Decoder,
    completions: &mut [Completion],
    on: &mut dyn FnMut(Event) -> Control,
) -> Result<Vec<Active>> {
    let choice = Choice { temperature: config.temperature, top_p: config.top_p, top_k: config.top_k };
    let mut going = Vec::with_capacity(rows.len());
    let choose = |(row, logits): (&Active, &[f32])| {
        let step = completions[row.prompt].tokens.len();
        choose(logits, choice, uniform(config.seed, row.prompt as u64, step as u64))
    };
    let chosen: Vec<(u32, f32)> =
        rows.par_iter().zip(logits.par_chunks_exact(decoder.config.vocab)).map(choose).collect();
    for (mut row, (token, logprob)) in rows.into_iter().zip(chosen) {
        let completion = &mut completions[row.prompt];
        let mut over = config.eos.contains(&token);
        completion.finished = over;
        if !over {
            completion.tokens.push(token);
            completion.logprobs.push(logprob);
            match on(Event::Token { prompt: row.prompt, token }) {
                Control::Continue => {}
                Control::Finish => (over, completion.finished) = (true, true),
                Control::Stop => return Err(ModelError::Cancelled),
            }
            over |= completion.tokens.len() >= config.max_new_tokens || row.cache.len() >= decoder.longest();
        }
        if !over {
            row.last = token;
            going.push(row);
        } else if on(Event::Done { prompt: row.prompt }) == Control::Stop {
            return Err(ModelError::Cancelled);
        }
    }
    Ok(going)
}
