//! The work of `data.map`: batches of rows through the program, answers remembered.

use std::path::Path;

use llmflow_contract::{Context, Digest, Facts, Failure, Funnel, Hasher, Lease};
use llmflow_dataset::{Dataset, DatasetWriter, Judged, Row, TraceWriter, map_batches};

use super::{
    Params, answer,
    spec::{self, In, Out},
};
use crate::{
    data::report_counts,
    run::{
        heard::Line,
        left::ROW_BYTES,
        placeholder,
        program::Program,
        script::{self, ScriptFile},
    },
};

/// Bytes of one answer, all its rows together.
const ANSWER_BYTES: usize = 512 << 20;

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let dataset = Dataset::open(&inputs.data)?;
    let kind = params.kind(Some(dataset.kind()))?.unwrap_or(dataset.kind());
    let files = script::find_again(&params.files, ctx)?;
    let asker = Asker::new(params, ctx, &files)?;
    let mut writer = DatasetWriter::create(ctx, "data", kind)?;
    let trace = TraceWriter::create(ctx)?;
    let size = (params.batch as usize, at_once(ctx.lease()));
    let funnel =
        map_batches(ctx, &dataset, &mut writer, trace, size, |batch: &[Row]| -> Result<Vec<Judged>, Failure> {
            let (question, given) = asker.answer(batch)?;
            let clean = |line: &Line| asker.program.clean(line);
            let judged = answer::judge(kind, params.on_bad_row, batch, given, &clean)?;
            // Kept once it is known to be one.
            if let Some((question, kept)) = question.zip(judged.kept) {
                ctx.remember(question.bytes(), &kept)?;
            }
            Ok(judged.rows)
        })?;
    report(ctx, funnel)?;
    let facts = spec::facts_of(inputs.data.facts());
    Ok(Out { data: writer.finish(Facts { rows: None, ..facts })? })
}

/// Batches side by side. Each start loads its own model, so that those on one GPU are taken in turn.
fn at_once(lease: &Lease) -> usize {
    if lease.gpus.is_empty() { lease.cores as usize } else { 1 }
}

/// The program, and all of a question but its rows.
struct Asker<'a> {
    ctx: &'a Context<'a>,
    program: Program,
    about: Digest,
    reuse: bool,
}

impl<'a> Asker<'a> {
    fn new(params: &Params, ctx: &'a Context<'a>, files: &[ScriptFile]) -> Result<Self, Failure> {
        let value = |name: &str| match name {
            "seed" => Some(ctx.seed().to_string()),
            "cores" => Some(ctx.lease().cores.to_string()),
            "scratch" => Some(ctx.scratch().display().to_string()),
            _ => None,
        };
        let argv: Vec<String> = params.command.iter().map(|word| placeholder::fill(word, value)).collect();
        let env = params.env.iter().map(|(name, text)| (name.clone(), placeholder::fill(text, value))).collect();
        let about = about(params, ctx.seed(), files)?; // first: these are the files that the program is then given
        let program = Program::new(ctx, argv, env, &params.secrets, files)?;
        Ok(Self { ctx, program, about, reuse: params.reuse })
    }

    /// What the program gives for these rows; with the question, if the answer is new.
    fn answer(&self, batch: &[Row]) -> Result<(Option<Digest>, Vec<u8>), Failure> {
        let mut input = Vec::new();
        for row in batch {
            input.extend_from_slice(row.to_json().to_string().as_bytes());
            input.push(b'\n');
        }
        let mut hasher = Hasher::new();
        hasher.part(self.about.bytes()).part(&input);
        let question = hasher.finish();
        if self.reuse
            && let Some(answer) = self.ctx.recall(question.bytes())?
        {
            return Ok((None, answer));
        }
        let mut answer = Vec::new();
        let mut take = |line: Line| {
            if answer.len() + line.bytes.len() >= ANSWER_BYTES {
                let message = format!("the command gave back more than {} MB for one batch", ANSWER_BYTES >> 20);
                return Err(Failure::input("command/too-much", message).param("batch").help("lower `batch`"));
            }
            answer.extend_from_slice(&line.bytes);
            answer.push(b'\n');
            Ok(())
        };
        // One byte more than a row may have, so that a row which is too long is seen to be.
        self.program.run(self.ctx, input, ROW_BYTES + 1, &mut take, &|| Ok(()))?;
        Ok((Some(question), answer))
    }
}

/// All that an answer depends on, rows aside: words, variables, files by content, the seed where it is used, and the names
/// under which the program finds secrets.
fn about(params: &Params, seed: u64, files: &[ScriptFile]) -> Result<Digest, Failure> {
    let mut hasher = Hasher::new();
    let is_seeded =
        placeholder::names(params.command.iter().chain(params.env.values())).iter().any(|name| name == "seed");
    hasher.part(&if is_seeded { seed.to_le_bytes().to_vec() } else { Vec::new() });
    for count in [params.command.len(), params.env.len()] {
        hasher.part(&(count as u64).to_le_bytes());
    }
    for word in params.command.iter().chain(params.env.iter().flat_map(|(name, text)| [name, text])) {
        hasher.part(word.as_bytes());
    }
    for file in files {
        let path: &Path = &file.path;
        let (digest, _) = Digest::of_file(path).map_err(|error| Failure::io("reading", path, &error))?;
        hasher.part(file.name.as_bytes()).part(digest.bytes());
    }
    if !params.secrets.is_empty() {
        hasher.part(b"secrets"); // their values are nowhere, not even hashed
    }
    for name in params.secrets.keys() {
        hasher.part(name.as_bytes());
    }
    Ok(hasher.finish())
}

fn report(ctx: &Context, funnel: Funnel) -> Result<(), Failure> {
    let dropped: u64 = funnel.dropped.values().sum();
    let mut summary = format!("{} kept", funnel.kept);
    for (count, word) in [(funnel.made, "made"), (dropped, "not_returned"), (funnel.set_aside, "set aside")] {
        if count > 0 {
            summary += &format!(" · {count} {word}");
        }
    }
    let metrics = [
        ("rows", funnel.rows_in),
        ("kept", funnel.kept),
        ("made", funnel.made),
        ("dropped", dropped),
        ("set_aside", funnel.set_aside),
    ];
    report_counts(ctx, summary, metrics, funnel, Vec::new())
}
