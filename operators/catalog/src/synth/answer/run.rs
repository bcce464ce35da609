//! Chooses prompts, asks them batch by batch, writes what stays.

use std::collections::BTreeSet;

use llmflow_contract::{Context, Facts, Failure, Report, Sample};
use llmflow_dataset::{Dataset, DatasetWriter, Fate, Message, Numbering, Row, RowId, TraceRecord, TraceWriter};
use llmflow_model::sampling::GenerateConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Params, Select,
    judge::{asked, judge, refused},
    spec::{In, Out},
};
use crate::{
    eval::statistics::below,
    synth::{
        journal::{BATCH, Journal, seed_of},
        speaker::{Said, Speaker},
    },
};

/// Most prompts, so that all of them fit in memory.
const MAX_PROMPTS: u64 = 1_000_000;
/// Answers shown in the report.
const SHOWN: usize = 8;

/// What a batch leaves in the journal: the answers of one prompt, or why it was not asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    refused: Option<String>,
    /// Text, and whether it ended by itself.
    said: Vec<(String, bool)>,
}

/// One prompt that was chosen.
struct Asked {
    turns: Vec<Message>,
    reference: Option<String>,
}

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let dataset = Dataset::open(&inputs.prompts)?;
    if dataset.len() > MAX_PROMPTS {
        let message = format!("{} prompts are more than the {MAX_PROMPTS} that one stage asks", dataset.len());
        return Err(Failure::input("synth/too-many", message).help("take some of them with `data.split`"));
    }
    let rows = dataset.read_all()?;
    let chosen = choose(params, rows.len(), ctx);
    let prompts: Vec<Asked> = chosen
        .iter()
        .map(|index| asked(&rows[*index]).map(|(turns, reference)| Asked { turns, reference }))
        .collect::<Result<_, _>>()?;
    let mut journal = Journal::restore(ctx, prompts.len())?;
    if journal.len() < prompts.len() {
        let speaker = Speaker::open(&inputs.model)?;
        while journal.len() < prompts.len() {
            ctx.check()?;
            let start = journal.len();
            let batch = &prompts[start..(start + BATCH).min(prompts.len())];
            let said = ask(params, &speaker, batch, start, prompts.len(), ctx)?;
            journal.extend(ctx, said)?;
        }
    }
    write(params, inputs, ctx, &rows, &chosen, &prompts, journal.entries())
}

/// Indices of the prompts to ask, in order.
fn choose(params: &Params, total: usize, ctx: &Context) -> Vec<usize> {
    let most = params.max_rows.map_or(total, |most| usize::try_from(most).unwrap_or(total).min(total));
    if params.select == Select::First || most == total {
        return (0..most).collect();
    }
    // The first `most` places of a Fisher-Yates shuffle.
    let mut order: Vec<usize> = (0..total).collect();
    let mut rng = ctx.rng("select");
    for place in 0..most {
        let other = place + below(total - place, &mut rng);
        order.swap(place, other);
    }
    order[..most].iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
}

fn ask(
    params: &Params,
    speaker: &Speaker,
    batch: &[Asked],
    start: usize,
    total: usize,
    ctx: &Context,
) -> Result<Vec<Entry>, Failure> {
    let (room, samples) = (params.max_new_tokens as usize, params.n as usize);
    let mut entries = Vec::with_capacity(batch.len());
    let mut tokens = Vec::new();
    for one in batch {
        let mut why = refused(params, &one.turns, one.reference.as_deref());
        if why.is_none() {
            let prompt = speaker.encode(&speaker.prompt(params.system.as_deref(), &one.turns)?)?;
            if speaker.fits(&prompt, room) {
                tokens.extend(std::iter::repeat_n(prompt, samples));
            } else {
                why = Some("too_long");
            }
        }
        entries.push(Entry { refused: why.map(str::to_owned), said: Vec::new() });
    }
    let config = GenerateConfig {
        max_new_tokens: room,
        temperature: params.temperature,
        top_p: params.top_p,
        eos: speaker.eos.clone(),
        batch_size: params.batch_size as usize,
        seed: seed_of(ctx, "answer", start),
        ..GenerateConfig::default()
    };
    let said = speaker.say(&tokens, &config, ctx, &mut |done| {
        ctx.progress((start + done / samples) as u64, Some(total as u64), "prompts");
    })?;
    let mut said = said.into_iter().map(|said| (said.text, said.finished));
    for entry in entries.iter_mut().filter(|entry| entry.refused.is_none()) {
        entry.said = said.by_ref().take(samples).collect();
    }
    ctx.progress((start + batch.len()) as u64, Some(total as u64), "prompts");
    Ok(entries)
}

fn write(
    params: &Params,
    inputs: &In,
    ctx: &Context,
    rows: &[Row],
    chosen: &[usize],
    prompts: &[Asked],
    entries: &[Entry],
) -> Result<Out, Failure> {
    let mut writer = DatasetWriter::create(ctx, "data", params.form.kind())?;
    let mut trace = TraceWriter::create(ctx)?;
    let mut numbering = Numbering::new();
    let mut report = Report::default();
    let mut dropped = std::collections::BTreeMap::<String, u64>::new();
    let mut answers = chosen.iter().zip(prompts).zip(entries).peekable();
    for (index, row) in rows.iter().enumerate() {
        let Some(((_, asked), entry)) = answers.next_if(|((chosen, _), _)| **chosen == index) else {
            trace.push(TraceRecord::dropped(&row.id, "not_chosen", Value::Null))?;
            continue;
        };
        let (mut kept, mut why) = (Vec::new(), entry.refused.clone());
        for (sample, (text, finished)) in entry.said.iter().enumerate() {
            let said = Said { text: text.clone(), finished: *finished };
            match judge(params, &asked.turns, asked.reference.as_deref(), &said, &kept) {
                Ok(content) => {
                    let id = numbering.unique(RowId::made(std::slice::from_ref(&row.id), sample as u64));
                    // The first answer stands for the prompt, so that every row in has one fate.
                    let fate = if kept.is_empty() { Fate::Changed } else { Fate::Made };
                    trace.push(TraceRecord::new(&id, vec![row.id.to_string()], fate).why("answered", Value::Null))?;
                    writer.push(Row { id, content, meta: row.meta.clone() })?;
                    show(&mut report, row, asked, text);
                    kept.push(text.clone());
                }
                Err(rule) => {
                    *dropped.entry(rule.to_owned()).or_default() += 1;
                    why = Some(rule.to_owned());
                }
            }
        }
        if kept.is_empty() {
            let rule = why.unwrap_or_else(|| "empty".to_owned());
            if entry.refused.is_some() {
                *dropped.entry(rule.clone()).or_default() += 1;
            }
            let said: Vec<&str> = entry.said.iter().map(|(text, _)| text.as_str()).collect();
            trace.push(TraceRecord::dropped(&row.id, &rule, json!({"said": said})))?;
        }
    }
    let made = writer.rows();
    report.funnel = Some(trace.finish(rows.len() as u64, made)?);
    let losses: Vec<String> = dropped.iter().map(|(rule, count)| format!("{count} {rule}")).collect();
    report.summary = format!("{} asked, {made} kept", prompts.len());
    if !losses.is_empty() {
        report.summary += &format!(" ({})", losses.join(", "));
    }
    for (name, value) in [("asked", prompts.len() as u64), ("kept", made), ("dropped", dropped.values().sum())] {
        ctx.metric(name, value as f64, None);
        report.metrics.insert(name.into(), value as f64);
    }
    ctx.report(&report)?;
    let facts = inputs.prompts.facts();
    let facts = Facts { used_for: facts.used_for, licences: facts.licences.clone(), ..Facts::default() };
    Ok(Out { data: writer.finish(facts)? })
}

fn show(report: &mut Report, row: &Row, asked: &Asked, answer: &str) {
    if report.samples.len() < SHOWN {
        let question = asked.turns.last().map(|turn| turn.content.clone()).unwrap_or_default();
        let mut texts = vec![("prompt".to_owned(), question), ("answer".to_owned(), answer.to_owned())];
        texts.extend(asked.reference.iter().map(|reference| ("reference".to_owned(), reference.clone())));
        report.samples.push(Sample {
            row: Some(row.id.to_string()),
            title: "answer".into(),
            texts,
            ..Sample::default()
        });
    }
}
