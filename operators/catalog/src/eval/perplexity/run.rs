//! Cuts text into windows and averages ln p over the tokens that count.

use llmflow_contract::{Context, Facts, Failure, Made, Report, Series, write_report};
use llmflow_dataset::{Content, Dataset, Row};
use llmflow_model::sampling::ScoreRequest;

use super::{
    Params,
    spec::{In, Out},
};
use crate::{
    language_model::failure,
    synth::speaker::{Speaker, with_system},
};

/// Points of the curve over windows.
const MAX_POINTS: usize = 2_000;

/// A window and which of its predicted tokens (all but the first) count.
struct Window {
    request: ScoreRequest,
    counts: Vec<bool>,
}

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let dataset = Dataset::open(&inputs.data)?;
    let speaker = Speaker::open(&inputs.model)?;
    ctx.check()?;
    let length = params.window as usize;
    if length > speaker.context {
        let message = format!("a window of {length} tokens is longer than the model's context of {}", speaker.context);
        return Err(Failure::input("param/range", message).param("window"));
    }
    let limit = params.max_windows.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let (mut sum, mut tokens, mut windows_done) = (0.0_f64, 0_u64, 0_usize);
    let mut points = Vec::new();
    for row in dataset.rows() {
        if windows_done >= limit {
            break;
        }
        ctx.check()?;
        let (ids, counts) = encode(params, &speaker, &row?)?;
        let windows: Vec<Window> = cut(&ids, &counts, length).into_iter().take(limit - windows_done).collect();
        for batch in windows.chunks(params.batch_size as usize) {
            let requests: Vec<ScoreRequest> = batch.iter().map(|window| window.request.clone()).collect();
            for (window, score) in batch.iter().zip(speaker.score(&requests, requests.len(), ctx, &mut |_| ())?) {
                let counted = score.logprobs.iter().zip(&window.counts).filter(|(_, counts)| **counts);
                let (own, count) =
                    counted.fold((0.0, 0_u64), |(sum, count), (logprob, _)| (sum - f64::from(*logprob), count + 1));
                sum += own;
                tokens += count;
                windows_done += 1;
                if count > 0 && points.len() < MAX_POINTS {
                    points.push((windows_done as f64, own / count as f64));
                }
            }
            ctx.progress(windows_done as u64, params.max_windows, "windows");
        }
    }
    if tokens == 0 {
        return Err(Failure::input("eval/no-text", "the data holds no token to predict"));
    }
    finish(ctx, sum / tokens as f64, tokens, points)
}

fn finish(ctx: &Context, nll: f64, tokens: u64, points: Vec<(f64, f64)>) -> Result<Out, Failure> {
    let mut report = Report::default();
    for (name, value) in [("nll", nll), ("perplexity", nll.exp()), ("tokens", tokens as f64)] {
        ctx.metric(name, value, None);
        report.metrics.insert(name.to_owned(), value);
    }
    report.summary = format!("perplexity {:.2} over {tokens} tokens", nll.exp());
    let (x_label, y_label) = ("window".into(), "nats a token".into());
    report.series.push(Series { name: "nll".into(), x_label, y_label, points });
    let folder = ctx.output("results")?;
    write_report(&folder, &report)?;
    ctx.report(&report)?;
    Ok(Out { results: Made::new(folder, Facts::default()) })
}

/// Tokens of a row, and which of them count.
fn encode(params: &Params, speaker: &Speaker, row: &Row) -> Result<(Vec<u32>, Vec<bool>), Failure> {
    if let Content::Text(text) = &row.content {
        let ids = speaker.encode(text)?;
        let counts = vec![true; ids.len()];
        return Ok((ids, counts));
    }
    let messages = with_system(params.system.as_deref(), &row.as_chat()?.messages);
    let encoded = speaker.tokenizer.encode_for_training(&messages).map_err(failure)?;
    let counts = encoded.loss_mask.iter().map(|learned| *learned || !params.assistant_only).collect();
    Ok((encoded.ids, counts))
}

/// Separate windows of `length` tokens; a last one of a single token predicts nothing and is left out.
fn cut(ids: &[u32], counts: &[bool], length: usize) -> Vec<Window> {
    let windows = ids.chunks(length).zip(counts.chunks(length)).filter(|(ids, _)| ids.len() > 1);
    windows
        .map(|(ids, counts)| Window {
            request: ScoreRequest { tokens: ids.to_vec(), from: 1 },
            counts: counts[1..].to_vec(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_share_no_token_and_a_single_one_is_left_out() {
        let windows = cut(&[1, 2, 3, 4, 5], &[true; 5], 2);
        let tokens: Vec<_> = windows.iter().map(|window| window.request.tokens.clone()).collect();
        assert_eq!(tokens, [vec![1, 2], vec![3, 4]]);
        assert_eq!(windows[0].counts, [true]);
    }
}
