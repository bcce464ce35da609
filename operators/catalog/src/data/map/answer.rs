//! What a program gave back for a batch of rows, told apart row by row.

use std::collections::{BTreeMap, HashMap};

use llmflow_contract::Failure;
use llmflow_dataset::{Judged, Row, RowId, RowKind, Verdict};
use serde_json::{Value, json};

use crate::{
    data::{excerpt, load::OnBadRow},
    run::{
        heard::{Line, listen},
        left::{ROW_BYTES, fields_of, row_of},
    },
};

/// What an answer comes to.
pub(super) struct Judgement {
    /// One verdict for each row of the batch.
    pub rows: Vec<Judged>,
    /// The answer as it may be kept: lines that are no rows without secrets, and judged alike when they are read again.
    /// None where that cannot be.
    pub kept: Option<Vec<u8>>,
}

/// A line that is no row: which row it came from, if it says, and what is wrong.
struct Bad {
    from: Option<usize>,
    reason: String,
}

/// Judges what came back for a batch; `clean` takes secrets out of a line.
///
/// # Errors
/// `command/bad-row` with the line, unless such rows are set aside.
pub(super) fn judge(
    kind: RowKind,
    on_bad_row: OnBadRow,
    batch: &[Row],
    answer: Vec<u8>,
    clean: &dyn Fn(&Line) -> String,
) -> Result<Judgement, Failure> {
    let index: HashMap<&RowId, usize> = batch.iter().enumerate().map(|(at, row)| (&row.id, at)).collect();
    let mut returned: Vec<Vec<Row>> = batch.iter().map(|_| Vec::new()).collect();
    let (mut bad, mut number, mut failure) = (Vec::new(), 0u64, None);
    let (mut mended, mut can_be_kept) = (BTreeMap::new(), true);
    let heard = listen(&answer[..], ROW_BYTES, |line| {
        number += 1;
        match row_from(kind, &index, &line) {
            Ok(None) => {}
            Ok(Some((from, row))) => returned[from].push(row),
            Err(found) => {
                let shown = clean(&line);
                let (found, kept) = told_again(found, &line, &shown, |line| row_from(kind, &index, line));
                match on_bad_row {
                    OnBadRow::SetAside => bad.push(found),
                    OnBadRow::Fail => failure = Some(refusal(number, &found.reason, &shown)),
                }
                can_be_kept &= kept.is_some();
                mended.extend(kept.map(|line| (number, line)));
            }
        }
        failure.is_none()
    });
    heard.expect("a slice can be read");
    if let Some(failure) = failure {
        return Err(failure);
    }
    let verdicts = batch.iter().zip(returned).enumerate().map(|(at, (row, rows))| {
        let own = bad.iter().find(|bad| bad.from == Some(at));
        // A bad line that names no row may have been the answer to any that has none.
        let lost = bad.iter().find(|bad| bad.from.is_none()).filter(|_| rows.is_empty());
        match own.or(lost) {
            Some(bad) => Verdict::SetAside { rule: "bad_row".into(), evidence: json!(bad.reason) }.into(),
            None => verdict(row, rows),
        }
    });
    Ok(Judgement { rows: verdicts.collect(), kept: can_be_kept.then(|| with_lines(answer, &mended)) })
}

/// What is wrong with a line, found without the secrets on it, and the line as the same will be found again; none if it
/// would not be.
fn told_again(
    found: Bad,
    line: &Line,
    shown: &str,
    judge: impl Fn(&Line) -> Result<Option<(usize, Row)>, Bad>,
) -> (Bad, Option<Vec<u8>>) {
    if line.is_cut {
        return (found, Some(vec![b' '; ROW_BYTES + 1])); // its length alone is what is wrong
    }
    if shown == line.text() {
        return (found, Some(line.bytes.clone()));
    }
    let without = Line { bytes: shown.as_bytes().to_vec(), is_cut: false };
    match judge(&without) {
        Err(again) if again.from == found.from => (again, Some(without.bytes)),
        _ => (found, None),
    }
}

/// The answer with other lines in the place of these, counted from 1.
fn with_lines(answer: Vec<u8>, lines: &BTreeMap<u64, Vec<u8>>) -> Vec<u8> {
    if lines.is_empty() {
        return answer;
    }
    let each = (1..).zip(answer.split_inclusive(|byte| *byte == b'\n'));
    each.flat_map(|(number, line)| match lines.get(&number) {
        Some(other) => [&other[..], b"\n"],
        None => [line, b""],
    })
    .collect::<Vec<_>>()
    .concat()
}

fn row_from(kind: RowKind, index: &HashMap<&RowId, usize>, line: &Line) -> Result<Option<(usize, Row)>, Bad> {
    let nowhere = |reason| Bad { from: None, reason };
    let Some(fields) = fields_of(line).map_err(nowhere)? else { return Ok(None) };
    let named = ["id", "parent"].iter().find_map(|name| index.get(&RowId::new(fields.get(*name)?.as_str()?)).copied());
    let (parents, row) = row_of(kind, fields).map_err(|reason| Bad { from: named, reason })?;
    match parents.iter().find_map(|parent| index.get(parent)) {
        Some(from) => Ok(Some((*from, row))),
        None => Err(nowhere("has no `id` or `parent` of a row it was given".into())),
    }
}

fn verdict(row: &Row, mut rows: Vec<Row>) -> Judged {
    if rows.is_empty() {
        return Verdict::Drop { rule: "not_returned".into(), evidence: Value::Null }.into();
    }
    let mut first = rows.remove(0);
    if first.content == row.content {
        first.id = row.id.clone();
    }
    let verdict = if first == *row { Verdict::Keep } else { Verdict::Change { row: first, rule: "command".into() } };
    Judged { verdict, made: rows }
}

fn refusal(number: u64, reason: &str, shown: &str) -> Failure {
    Failure::input("command/bad-row", format!("line {number} of what the command gave back {reason}"))
        .cause(excerpt(shown))
        .help("mend the command, or leave such rows out: `on_bad_row: set_aside`")
}
