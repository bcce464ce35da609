//! The log-probability of given tokens: what perplexity and multiple choice are made of.

use crate::{
    ModelError, Result,
    transformer::{Decoder, Packed, Target},
};

/// Tokens, and where the scored part begins; `from` is at least 1, for the first token has no context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoreRequest {
    pub tokens: Vec<u32>,
    pub from: usize,
}

/// Of each scored token: ln p, and whether it is the likeliest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    pub logprobs: Vec<f32>,
    pub greedy: Vec<bool>,
}

/// Most tokens in one pass: bounds memory whatever `batch` says.
const MAX_ROWS: usize = 2048;

/// Scores `batch` requests at a time; neighbours that begin alike share that beginning.
///
/// `on_progress` hears how many are done; `false` stops.
///
/// # Errors
/// [`ModelError::Invalid`] for a `from` outside the tokens; [`ModelError::Cancelled`]; those of [`Decoder::forward`].
pub fn score(
    decoder: &Decoder,
    requests: &[ScoreRequest],
    batch: usize,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Score>> {
    if let Some(bad) = requests.iter().find(|request| request.from == 0 || request.from > request.tokens.len()) {
        let message = format!("cannot score from token {} of {}", bad.from, bad.tokens.len());
        return Err(ModelError::Invalid(message));
    }
    let mut scores = Vec::with_capacity(requests.len());
    while scores.len() < requests.len() {
        let left = &requests[scores.len()..];
        let mut rows = 0;
        let fits = left.iter().take(batch.max(1)).take_while(|request| {
            rows += request.tokens.len();
            rows <= MAX_ROWS
        });
        let now = &left[..fits.count().max(1)];
        scores.extend(score_together(decoder, now)?);
        if !on_progress(scores.len()) {
            return Err(ModelError::Cancelled);
        }
    }
    Ok(scores)
}

fn score_together(decoder: &Decoder, requests: &[ScoreRequest]) -> Result<Vec<Score>> {
    let texts: Vec<&[u32]> = requests.iter().map(|request| &request.tokens[..]).collect();
    let packed = Packed::sharing(&texts);
    let x = decoder.forward(&packed, None, None)?;
    let mut targets = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        for position in request.from..request.tokens.len() {
            targets.push(Target { row: packed.row(index, position - 1), token: request.tokens[position] });
        }
    }
    let mut judged = decoder.judge(&x, &targets).into_iter();
    let mut scores = Vec::with_capacity(requests.len());
    for request in requests {
        let own: Vec<_> = judged.by_ref().take(request.tokens.len() - request.from).collect();
        scores.push(Score {
            logprobs: own.iter().map(|one| one.logprob).collect(),
            greedy: own.iter().map(|one| one.greedy).collect(),
        });
    }
    Ok(scores)
}
