//! Asks, scores, marks, writes one sample a question.

use std::collections::BTreeMap;

use llmflow_contract::{Chart, Context, Facts, Failure, Interval, Made, Report, Sample, write_report};
use llmflow_dataset::{Choice, Dataset, Message, Row};
use llmflow_model::sampling::GenerateConfig;

use super::{
    Answers, Params, Template,
    marks::{Marks, every_nth, has_phrase},
    spec::{In, Out},
};
use crate::{
    eval::statistics::{Ends, mean, share_interval, standard_error},
    synth::speaker::{Speaker, total},
};

/// Most questions, so that all of them fit in memory.
const MAX_QUESTIONS: u64 = 1_000_000;
/// Free answers shown in the stage's own report.
const SHOWN: usize = 5;

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let rows = questions(inputs)?;
    ctx.check()?;
    let speaker = Speaker::open(&inputs.model)?;
    ctx.check()?;
    let quiz = Quiz { params, rows: &rows, speaker: &speaker };
    let (marks, cut) = quiz.marks(ctx)?;
    let answers = quiz.answers(ctx)?;
    let samples: Vec<Sample> = rows
        .iter()
        .zip(&marks)
        .zip(&answers)
        .map(|((row, marks), answer)| sample(row, marks, answer))
        .collect::<Result<_, _>>()?;

    let mut report = Report { samples, ..Report::default() };
    let figures = figures(params, &report.samples);
    let mut intervals = Vec::new();
    for (name, value, error) in &figures {
        report.metrics.insert((*name).to_owned(), *value);
        report.metrics.insert(format!("{name}_stderr"), *error);
        if *name != "gold_logprob" {
            let Ends { lower, upper } = share_interval(*value, rows.len());
            intervals.push(Interval { label: (*name).to_owned(), value: *value, lower, upper });
        }
    }
    report.metrics.insert("n".into(), rows.len() as f64);
    for (name, value) in &report.metrics {
        ctx.metric(name, *value, None);
    }
    let shown: Vec<String> = figures.iter().map(|(name, value, _)| format!("{name} {value:.2}")).collect();
    report.summary = format!("{} (n={})", shown.join(" · "), rows.len());
    if cut > 0 {
        report.summary += &format!(" · {cut} choices cut to the context");
    }
    report.charts.push(Chart::Intervals { title: "share of questions".into(), unit: String::new(), intervals });

    let folder = ctx.output("results")?;
    write_report(&folder, &report)?;
    let answered = report.samples.iter().filter(|sample| answer_of(sample).is_some()).take(SHOWN).cloned().collect();
    ctx.report(&Report { samples: answered, ..report })?;
    Ok(Out { results: Made::new(folder, Facts { rows: Some(rows.len() as u64), ..Facts::default() }) })
}

fn questions(inputs: &In) -> Result<Vec<Row>, Failure> {
    let dataset = Dataset::open(&inputs.data)?;
    if dataset.is_empty() {
        return Err(Failure::input("eval/no-questions", "the data holds no question"));
    }
    if dataset.len() > MAX_QUESTIONS {
        let message = format!("{} questions are more than the {MAX_QUESTIONS} that one benchmark takes", dataset.len());
        return Err(Failure::input("eval/too-many", message));
    }
    let rows = dataset.read_all()?;
    for row in &rows {
        let question = row.as_choice()?;
        if question.gold as usize >= question.choices.len() {
            let message = format!(
                "question {} has {} choices, and says number {} is right",
                row.id,
                question.choices.len(),
                question.gold
            );
            return Err(Failure::input("eval/bad-question", message).help("`gold` counts from 0"));
        }
        if question.choices.iter().any(String::is_empty) {
            return Err(Failure::input("eval/bad-question", format!("question {} has an empty choice", row.id)));
        }
    }
    Ok(rows)
}

struct Quiz<'a> {
    params: &'a Params,
    rows: &'a [Row],
    speaker: &'a Speaker,
}

impl Quiz<'_> {
    /// The marks of every question, and how many choices did not fit the context.
    fn marks(&self, ctx: &Context) -> Result<(Vec<Marks>, usize), Failure> {
        let (mut requests, mut ends, mut cut) = (Vec::new(), Vec::new(), 0);
        for index in 0..self.rows.len() {
            if index % 64 == 0 {
                ctx.check()?;
            }
            let question = self.rows[index].as_choice()?;
            let context = self.context(index)?;
            for choice in &question.choices {
                let (request, was_cut) = self.speaker.continuation(&context, &self.spoken(choice))?;
                cut += usize::from(was_cut);
                requests.push(request);
            }
            ends.push(requests.len());
        }
        let total_questions = self.rows.len() as u64;
        let scores = self.speaker.score(&requests, self.params.batch_size as usize, ctx, &mut |done| {
            let questions = ends.partition_point(|end| *end <= done) as u64;
            ctx.progress(questions, Some(total_questions), "questions");
        })?;
        let mut logprobs = scores.iter().map(total);
        let marks = self.rows.iter().map(|row| {
            let question = row.as_choice()?;
            let own: Vec<f64> = logprobs.by_ref().take(question.choices.len()).collect();
            let spoken: Vec<String> = question.choices.iter().map(|choice| self.spoken(choice)).collect();
            Ok(Marks::of(&own, &spoken, question.gold as usize))
        });
        Ok((marks.collect::<Result<_, Failure>>()?, cut))
    }

    /// The free answers, `None` for questions that were not asked.
    fn answers(&self, ctx: &Context) -> Result<Vec<Option<String>>, Failure> {
        let asked = match self.params.answers {
            Answers::Count(count) => every_nth(self.rows.len(), count as usize),
            Answers::Every(_) => (0..self.rows.len()).collect(),
        };
        let mut answers = vec![None; self.rows.len()];
        let room = self.params.max_new_tokens as usize;
        let (mut places, mut prompts) = (Vec::new(), Vec::new());
        for index in asked {
            let prompt = self.speaker.encode(&self.context(index)?)?;
            if self.speaker.fits(&prompt, room) {
                places.push(index);
                prompts.push(prompt);
            }
        }
        let config = GenerateConfig {
            max_new_tokens: room,
            eos: self.speaker.eos.clone(),
            batch_size: self.params.batch_size as usize,
            ..GenerateConfig::default()
        };
        let total = prompts.len() as u64;
        let said =
            self.speaker.say(&prompts, &config, ctx, &mut |done| ctx.progress(done as u64, Some(total), "answers"))?;
        for (place, said) in places.into_iter().zip(said) {
            answers[place] = Some(said.text);
        }
        Ok(answers)
    }

    /// All that stands before a choice: solved examples, then the question.
    fn context(&self, index: usize) -> Result<String, Failure> {
        let shots = (0..self.rows.len()).filter(|shot| *shot != index).take(self.params.num_fewshot as usize);
        let shots: Vec<&Choice> = shots.map(|shot| self.rows[shot].as_choice()).collect::<Result<_, _>>()?;
        let query = &self.rows[index].as_choice()?.query;
        let gold = |shot: &Choice| shot.choices[shot.gold as usize].clone();
        match self.params.template {
            Template::None => {
                let solved = shots.iter().map(|shot| format!("{}\nAnswer: {}\n\n", shot.query, gold(shot)));
                Ok(solved.collect::<String>() + query + "\nAnswer:")
            }
            Template::Chat => {
                let mut turns = Vec::new();
                for shot in shots {
                    turns.extend([Message::user(&shot.query), Message::assistant(gold(shot))]);
                }
                turns.push(Message::user(query));
                self.speaker.prompt(self.params.system.as_deref(), &turns)
            }
        }
    }

    fn spoken(&self, choice: &str) -> String {
        match self.params.template {
            Template::Chat => choice.to_owned(),
            Template::None => format!(" {choice}"),
        }
    }
}

fn sample(row: &Row, marks: &Marks, answer: &Option<String>) -> Result<Sample, Failure> {
    let question = row.as_choice()?;
    let gold = question.gold as usize;
    let mut texts = vec![
        ("question".to_owned(), question.query.clone()),
        ("gold".to_owned(), question.choices[gold].clone()),
        ("predicted".to_owned(), question.choices[marks.predicted].clone()),
    ];
    let mut metrics = BTreeMap::from([
        ("acc".to_owned(), f64::from(u8::from(marks.acc))),
        ("acc_norm".to_owned(), f64::from(u8::from(marks.acc_norm))),
        ("gold_logprob".to_owned(), marks.gold_logprob),
        ("predicted".to_owned(), marks.predicted as f64),
        ("gold".to_owned(), gold as f64),
    ]);
    if let Some(answer) = answer {
        texts.push(("answer".to_owned(), answer.clone()));
        if let Some(key) = row.meta.get("key").and_then(|key| key.as_str()) {
            metrics.insert("key_phrase".to_owned(), f64::from(u8::from(has_phrase(answer, key))));
        }
    }
    Ok(Sample { row: Some(row.id.to_string()), title: question.query.clone(), texts, metrics })
}

/// Name, mean and standard error of each figure asked for.
fn figures(params: &Params, samples: &[Sample]) -> Vec<(&'static str, f64, f64)> {
    let mut names: Vec<&'static str> = params.metrics.iter().map(|metric| metric.name()).collect();
    let has_keys = samples.iter().any(|sample| sample.metrics.contains_key("key_phrase"));
    if params.answers == Answers::ALL && has_keys {
        names.push("key_phrase");
    }
    let of = |name: &'static str| {
        let values: Vec<f64> = samples.iter().map(|sample| sample.metrics.get(name).copied().unwrap_or(0.0)).collect();
        (name, mean(&values), standard_error(&values))
    };
    names.into_iter().map(of).collect()
}

fn answer_of(sample: &Sample) -> Option<&str> {
    sample.texts.iter().find(|(name, _)| name == "answer").map(|(_, text)| text.as_str())
}
