//! Reads pairs, takes the reference, learns, writes the adapter.

use std::path::Path;

use llmflow_contract::{AnyArtifact, Context, Failure, Report, Sample};
use llmflow_dataset::TraceWriter;
use llmflow_model::{
    ModelError, TextTokenizer,
    objective::Preference,
    training::{Contrast, OnPass, PairFigures, Policy, Trainer},
};

use super::{
    Params,
    spec::{In, Out},
};
use crate::{
    language_model::failure,
    train::{
        adapter::{self, Student},
        course::Course,
        encode::Encoder,
        gather::{Gathered, gather},
        longest,
        session::{self, Finished, Learned, Lesson},
        settings::Settings,
        show,
    },
};

const REFERENCES_FILE: &str = "references.json";

/// Pairs, and Σ ln p of both answers of each before the first step.
struct Pairs {
    learned: Vec<Contrast>,
    references: Vec<[f64; 2]>,
    objective: Preference,
}

impl Lesson for Pairs {
    fn step(&self, trainer: &mut Trainer, rows: &[usize], on_pass: &mut OnPass) -> Result<Learned, ModelError> {
        let batch: Vec<&Contrast> = rows.iter().map(|row| &self.learned[*row]).collect();
        let references: Vec<[f64; 2]> = rows.iter().map(|row| self.references[*row]).collect();
        let done = trainer.step_pairs(&batch, &references, &self.objective, on_pass)?;
        let PairFigures { chosen_reward, rejected_reward, accuracy, chosen_nll, .. } = done.figures;
        let figures = vec![
            ("margin", chosen_reward - rejected_reward),
            ("chosen_reward", chosen_reward),
            ("rejected_reward", rejected_reward),
            ("accuracy", accuracy),
            ("chosen_nll", chosen_nll),
        ];
        Ok(Learned { stepped: done.stepped, figures })
    }
    fn measure(&self, _: &Trainer, _: &mut OnPass) -> Result<Option<f64>, ModelError> {
        Ok(None)
    }
    fn save(&self, folder: &Path) -> Result<(), Failure> {
        let path = folder.join(REFERENCES_FILE);
        let text = serde_json::to_vec(&self.references).map_err(|error| Failure::bug(error.to_string()))?;
        std::fs::write(&path, text).map_err(|error| Failure::io("writing", &path, &error))
    }
}

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let student = Student::open(&inputs.model)?;
    let (settings, tokenizer) = (params.settings(), student.tokenizer.clone());
    let encoder = Encoder {
        tokenizer: &tokenizer,
        system: params.system.as_deref(),
        max_length: longest(params.max_length, student.context)?,
        answers_only: true,
    };
    let datasets: Vec<&AnyArtifact> = inputs.data.iter().map(|artifact| &**artifact).collect();
    let mut trace = TraceWriter::create(ctx)?;
    let mut gathered = gather(ctx, &datasets, |row| encoder.contrast(row), Contrast::tokens, Some(&mut trace))?;
    let kept = gathered.lessons.len() as u64;
    let funnel = trace.finish(kept + gathered.dropped_rows(), kept)?;
    let learned = std::mem::take(&mut gathered.lessons);
    let course = Course::new(ctx, &settings, learned.iter().map(Contrast::tokens).collect())?;
    let policy = student.adapted(ctx, &params.lora_target_modules, params.lora_r, params.alpha());
    let references = references(ctx, &settings, &policy, &learned)?;
    let pairs = Pairs { learned, references, objective: params.objective() };
    let finished = session::run(ctx, &settings, course, policy, &pairs)?;

    let mut report = Report { funnel: Some(funnel), ..Report::default() };
    for (row, pair) in gathered.rows.iter().zip(&pairs.learned).take(show::SHOWN) {
        report.samples.push(sample(&tokenizer, row, pair)?);
    }
    finish(params, ctx, &finished, &gathered, report)?;
    let facts = student.facts(&inputs.model, inputs.data.iter().map(|artifact| artifact.facts()));
    Ok(Out { adapter: adapter::write(ctx, &finished.policy, &inputs.model, facts)? })
}

/// What an earlier attempt saved, or the policy as it starts: it changes nothing yet, so it is its own reference.
fn references(
    ctx: &Context,
    settings: &Settings,
    policy: &Policy,
    pairs: &[Contrast],
) -> Result<Vec<[f64; 2]>, Failure> {
    if let Some(checkpoint) = ctx.restore()? {
        let saved = std::fs::read(checkpoint.folder.join(REFERENCES_FILE)).unwrap_or_default();
        if let Ok(saved) = serde_json::from_slice::<Vec<[f64; 2]>>(&saved)
            && saved.len() == pairs.len()
        {
            return Ok(saved);
        }
    }
    let all = pairs.iter().map(Contrast::tokens).sum::<usize>() as u64;
    let mut done = 0;
    let trainer = Trainer::new(policy.clone(), settings.trainer(1));
    let references = trainer.references(pairs, &mut |tokens| {
        done += tokens as u64;
        ctx.progress(done, Some(all), "reference tokens");
        !ctx.cancelled()
    });
    references.map_err(failure)
}

fn sample(tokenizer: &TextTokenizer, row: &str, pair: &Contrast) -> Result<Sample, Failure> {
    let mut shown = show::sample(tokenizer, "pair", row, &pair.chosen)?;
    let rejected = show::sample(tokenizer, "pair", row, &pair.rejected)?;
    shown.texts.iter_mut().filter(|(name, _)| name == "learned").for_each(|(name, _)| *name = "chosen".into());
    let answers = rejected.texts.into_iter().filter(|(name, _)| name == "learned");
    shown.texts.extend(answers.map(|(_, text)| ("rejected".to_owned(), text)));
    Ok(shown)
}

fn finish(
    params: &Params,
    ctx: &Context,
    finished: &Finished,
    gathered: &Gathered<Contrast>,
    mut report: Report,
) -> Result<(), Failure> {
    let mut figures = show::figures(finished);
    let last = |name: &str| finished.history.last(name).unwrap_or_default();
    for name in ["margin", "chosen_reward", "rejected_reward", "accuracy", "chosen_nll"] {
        figures.push((name, last(name)));
    }
    figures.extend([
        ("rows", gathered.rows.len() as f64),
        ("cut", gathered.cut as f64),
        ("dropped", gathered.dropped_rows() as f64),
        ("rank", f64::from(params.lora_r)),
        ("parameters", finished.policy.parameters().values.len() as f64),
    ]);
    report.tables.push(show::settings_table(vec![
        (
            "loss",
            format!("{:?}, beta {}, rpo_alpha {}", params.loss_type, params.beta, params.rpo_alpha).to_lowercase(),
        ),
        ("rank", params.lora_r.to_string()),
        ("layers", params.lora_target_modules.names().join(", ")),
        ("learning rate", format!("{:e}, {:?}", params.learning_rate, params.lr_scheduler_type).to_lowercase()),
        ("steps", format!("{}, {} to warm up", finished.total_steps, finished.warmup_steps)),
        ("pairs a step", params.settings().batch_size.to_string()),
    ]));
    let first = finished.history.curves.get("margin").and_then(|curve| curve.first()).copied().unwrap_or_default();
    let summary = format!("margin {first:.2} → {:.2}, accuracy {:.2}", last("margin"), last("accuracy"));
    show::finish(ctx, summary, &figures, &finished.history, report)
}
