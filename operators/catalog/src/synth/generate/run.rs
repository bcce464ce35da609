//! Asks for questions batch by batch, judges them, writes those that stay.

use std::collections::{BTreeMap, HashSet};

use llmflow_contract::{Context, Facts, Failure, Funnel, Report, Sample};
use llmflow_dataset::{
    Chat, Content, Dataset, DatasetWriter, Fate, Message, Meta, Row, RowId, RowKind, TraceRecord, TraceWriter,
};
use llmflow_model::sampling::{GenerateConfig, Score};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Params, rules, sentences,
    spec::{In, Out},
};
use crate::synth::{
    journal::{BATCH, Journal, seed_of},
    speaker::{Speaker, total},
};

/// Most sentences, so that all of them fit in memory.
const MAX_SENTENCES: usize = 1_000_000;
/// Rows shown in the report.
const SHOWN: usize = 8;
/// Solved examples of the task, of subjects that no user's documents share.
const EXAMPLES: [(&str, &str); 3] = [
    ("The heart pumps blood through the body.", "What does the heart do?"),
    (
        "A compass needle points to the north because the Earth is a magnet.",
        "Why does a compass needle point to the north?",
    ),
    ("Bread dough rises when yeast turns sugar into gas.", "When does bread dough rise?"),
];

/// A sentence to ask about.
struct Source {
    document: RowId,
    /// Place among the sentences of its document, from 0.
    place: u64,
    sentence: String,
}

/// What the model wrote about one sentence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Written {
    question: String,
    /// The rule it breaks.
    broken: Option<String>,
    /// Nats a token by which it makes its sentence likelier, where that was asked.
    gain: Option<f64>,
}

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let (documents, sources) = read(inputs, ctx)?;
    let mut journal = Journal::<Written>::restore(ctx, sources.len())?;
    if journal.len() < sources.len() && !is_enough(params, journal.entries()) {
        let speaker = Speaker::open(&inputs.model)?;
        while journal.len() < sources.len() && !is_enough(params, journal.entries()) {
            ctx.check()?;
            let start = journal.len();
            let batch = &sources[start..(start + BATCH).min(sources.len())];
            let written = write_batch(params, &speaker, batch, start, sources.len(), ctx)?;
            journal.extend(ctx, written)?;
        }
    }
    finish(params, inputs, ctx, documents, &sources, journal.entries())
}

/// The number of documents, and their sentences in order.
fn read(inputs: &In, ctx: &Context) -> Result<(u64, Vec<Source>), Failure> {
    let dataset = Dataset::open(&inputs.documents)?;
    let mut sources = Vec::new();
    for row in dataset.rows() {
        ctx.check()?;
        let row = row?;
        for (place, sentence) in sentences::askable(row.as_document()?).into_iter().enumerate() {
            sources.push(Source { document: row.id.clone(), place: place as u64, sentence });
        }
        if sources.len() > MAX_SENTENCES {
            let message =
                format!("the documents have more than the {MAX_SENTENCES} sentences that one stage asks about");
            return Err(Failure::input("synth/too-many", message));
        }
    }
    Ok((dataset.len(), sources))
}

/// Whether `max_rows` is reached.
fn is_enough(params: &Params, written: &[Written]) -> bool {
    params
        .max_rows
        .is_some_and(|most| verdicts(written, None).iter().filter(|rule| rule.is_none()).count() as u64 >= most)
}

/// For each question the rule that drops it, repeats and those past `max_rows` included.
fn verdicts(written: &[Written], max_rows: Option<u64>) -> Vec<Option<String>> {
    let (mut seen, mut kept) = (HashSet::new(), 0_u64);
    let judge = |one: &Written| {
        if one.broken.is_some() {
            return one.broken.clone();
        }
        if !seen.insert(rules::same_as(&one.question)) {
            return Some("repeats".to_owned());
        }
        kept += 1;
        (max_rows.is_some_and(|most| kept > most)).then(|| "past_max_rows".to_owned())
    };
    written.iter().map(judge).collect()
}

fn write_batch(
    params: &Params,
    speaker: &Speaker,
    batch: &[Source],
    start: usize,
    all: usize,
    ctx: &Context,
) -> Result<Vec<Written>, Failure> {
    let room = params.max_new_tokens as usize;
    let (mut prompts, mut fits) = (Vec::new(), Vec::new());
    for source in batch {
        let prompt = speaker.encode(&speaker.prompt(params.system.as_deref(), &turns(&source.sentence))?)?;
        fits.push(speaker.fits(&prompt, room));
        if speaker.fits(&prompt, room) {
            prompts.push(prompt);
        }
    }
    let config = GenerateConfig {
        max_new_tokens: room,
        temperature: params.temperature,
        eos: speaker.eos.clone(),
        batch_size: params.batch_size as usize,
        seed: seed_of(ctx, "question", start),
        ..GenerateConfig::default()
    };
    let said = speaker.say(&prompts, &config, ctx, &mut |done| {
        ctx.progress((start + done) as u64, Some(all as u64), "sentences");
    })?;
    let mut said = said.into_iter();
    let mut written = Vec::with_capacity(batch.len());
    for (source, fits) in batch.iter().zip(fits) {
        let said = if fits { said.next() } else { None };
        let question = said.map(|said| rules::clean(&said.text)).unwrap_or_default();
        let broken =
            if fits { rules::broken(&question, &source.sentence, params.keep.min_overlap) } else { Some("too_long") };
        written.push(Written { question, broken: broken.map(str::to_owned), gain: None });
    }
    gains(params, speaker, batch, &mut written, ctx)?;
    ctx.progress((start + batch.len()) as u64, Some(all as u64), "sentences");
    Ok(written)
}

/// Measures how much likelier each question makes its sentence, and drops those that do not.
fn gains(
    params: &Params,
    speaker: &Speaker,
    batch: &[Source],
    written: &mut [Written],
    ctx: &Context,
) -> Result<(), Failure> {
    let system = params.system.as_deref();
    let unasked = speaker.prompt(system, &[Message::user("")])?;
    let mut requests = Vec::new();
    for (source, one) in batch.iter().zip(written.iter()).filter(|(_, one)| one.broken.is_none()) {
        let asked = speaker.prompt(system, &[Message::user(&one.question)])?;
        for context in [&asked, &unasked] {
            requests.push(speaker.continuation(context, &source.sentence)?.0);
        }
    }
    let scores = speaker.score(&requests, params.batch_size as usize, ctx, &mut |_| ())?;
    let mean = |score: &Score| total(score) / score.logprobs.len().max(1) as f64;
    for (one, pair) in written.iter_mut().filter(|one| one.broken.is_none()).zip(scores.chunks_exact(2)) {
        let gain = mean(&pair[0]) - mean(&pair[1]);
        one.gain = Some(gain);
        if gain < params.keep.min_gain {
            one.broken = Some("ungrounded".to_owned());
        }
    }
    Ok(())
}

/// The task with its examples, then the sentence.
fn turns(sentence: &str) -> Vec<Message> {
    let ask = |sentence: &str| Message::user(format!("Write one question that this sentence answers.\n{sentence}"));
    let examples = EXAMPLES.iter().flat_map(|(sentence, question)| [ask(sentence), Message::assistant(*question)]);
    examples.chain([ask(sentence)]).collect()
}

fn finish(
    params: &Params,
    inputs: &In,
    ctx: &Context,
    documents: u64,
    sources: &[Source],
    written: &[Written],
) -> Result<Out, Failure> {
    let mut writer = DatasetWriter::create(ctx, "data", RowKind::Chat)?;
    let mut trace = TraceWriter::create(ctx)?;
    let mut dropped = BTreeMap::<String, u64>::new();
    let mut report = Report::default();
    for ((source, one), rule) in sources.iter().zip(written).zip(verdicts(written, params.max_rows)) {
        let id = RowId::made(std::slice::from_ref(&source.document), source.place);
        let parents = vec![source.document.to_string()];
        let gain = one.gain.map(|gain| (gain * 1e4).round() / 1e4);
        let evidence = json!({"question": one.question, "sentence": source.sentence, "gain": gain});
        if let Some(rule) = rule {
            *dropped.entry(rule.clone()).or_default() += 1;
            trace.push(TraceRecord::new(&id, parents, Fate::Dropped).why(&rule, evidence))?;
            continue;
        }
        trace.push(TraceRecord::new(&id, parents, Fate::Made).why("question_for_sentence", evidence))?;
        let messages = vec![Message::user(&one.question), Message::assistant(&source.sentence)];
        let meta = Meta::from_iter([
            ("document".to_owned(), json!(source.document)),
            ("sentence".to_owned(), json!(source.place)),
            ("gain".to_owned(), json!(gain)),
        ]);
        if report.samples.len() < SHOWN {
            let texts =
                vec![("question".to_owned(), one.question.clone()), ("answer".to_owned(), source.sentence.clone())];
            let metrics = BTreeMap::from_iter(gain.map(|gain| ("gain".to_owned(), gain)));
            report.samples.push(Sample { row: Some(id.to_string()), title: "written row".into(), texts, metrics });
        }
        writer.push(Row { id, content: Content::Chat(Chat { messages, tools: None }), meta })?;
    }
    let made = writer.rows();
    let lost: u64 = dropped.values().sum();
    // What was written and dropped came in as a question; the documents themselves are read, never passed on.
    trace.finish(lost, made)?;
    report.funnel = Some(Funnel { rows_in: documents, made, dropped: dropped.clone(), ..Funnel::default() });
    report.summary = summary(written.len(), made, &dropped);
    for (name, value) in [("written", written.len() as f64), ("kept", made as f64)] {
        ctx.metric(name, value, None);
        report.metrics.insert(name.to_owned(), value);
    }
    ctx.report(&report)?;
    let facts = inputs.documents.facts();
    let facts = Facts { used_for: facts.used_for, licences: facts.licences.clone(), ..Facts::default() };
    Ok(Out { data: writer.finish(facts)? })
}

/// `210 written, 131 kept (44 ungrounded, 35 repeats)`
fn summary(written: usize, kept: u64, dropped: &BTreeMap<String, u64>) -> String {
    let mut losses: Vec<(&String, &u64)> = dropped.iter().collect();
    losses.sort_by_key(|(rule, count)| (std::cmp::Reverse(**count), *rule));
    let losses: Vec<String> = losses.iter().map(|(rule, count)| format!("{count} {rule}")).collect();
    let losses = if losses.is_empty() { String::new() } else { format!(" ({})", losses.join(", ")) };
    format!("{written} written, {kept} kept{losses}")
}

#[cfg(test)]
mod unit {
    use super::*;

    fn written(question: &str, broken: Option<&str>) -> Written {
        Written { question: question.into(), broken: broken.map(str::to_owned), gain: None }
    }

    #[test]
    fn the_second_of_equal_questions_and_those_past_the_limit_are_dropped() {
        let all = [written("a b?", None), written("A b", None), written("c?", Some("length")), written("d?", None)];
        let rules: Vec<_> = verdicts(&all, Some(1)).into_iter().map(Option::unwrap_or_default).collect();
        assert_eq!(rules, ["", "repeats", "length", "past_max_rows"]);
    }

    #[test]
    fn the_summary_names_the_largest_loss_first() {
        let dropped = BTreeMap::from([("repeats".to_owned(), 35), ("ungrounded".to_owned(), 44)]);
        assert_eq!(summary(210, 131, &dropped), "210 written, 131 kept (44 ungrounded, 35 repeats)");
        assert_eq!(summary(1, 1, &BTreeMap::new()), "1 written, 1 kept");
    }
}
