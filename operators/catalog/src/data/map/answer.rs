//! What a program gave back for a batch of rows, told apart row by row.

use std::collections::HashMap;

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

/// A line that is no row: which row it came from, if it says, and what is wrong.
struct Bad {
    from: Option<usize>,
    reason: String,
}

/// One verdict for each row of the batch.
///
/// # Errors
/// `command/bad-row` with the line, unless such rows are set aside.
pub(super) fn judge(kind: RowKind, on_bad_row: OnBadRow, batch: &[Row], answer: &[u8]) -> Result<Vec<Judged>, Failure> {
    let index: HashMap<&RowId, usize> = batch.iter().enumerate().map(|(at, row)| (&row.id, at)).collect();
    let mut returned: Vec<Vec<Row>> = batch.iter().map(|_| Vec::new()).collect();
    let (mut bad, mut number, mut failure) = (Vec::new(), 0u64, None);
    listen(answer, ROW_BYTES, |line| {
        number += 1;
        match row_from(kind, &index, &line) {
            Ok(None) => {}
            Ok(Some((from, row))) => returned[from].push(row),
            Err(found) if on_bad_row == OnBadRow::SetAside => bad.push(found),
            Err(found) => failure = Some(refusal(number, &found.reason, &line)),
        }
        failure.is_none()
    });
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
    Ok(verdicts.collect())
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

fn refusal(number: u64, reason: &str, line: &Line) -> Failure {
    Failure::input("command/bad-row", format!("line {number} of what the command gave back {reason}"))
        .cause(excerpt(&line.text()))
        .help("mend the command, or leave such rows out: `on_bad_row: set_aside`")
}
