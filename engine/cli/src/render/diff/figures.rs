//! Causes and figures: what was changed, and what it did to times and metrics.

use llmflow_contract::StageId;
use llmflow_runtime::event::RunId;

use super::{Cause, Diff, End, FEW, Figure, INDENT, NotRun, Verdict, Wanted, line};
use crate::render::{
    change,
    explain::did,
    format,
    siblings::folded,
    style::Paint,
    table::{Table, wrap},
};

pub(super) fn causes(it: &Diff, wanted: Wanted, width: usize) -> Vec<String> {
    let same = match it.same.len() {
        0 => String::new(),
        _ => format!("({}: same)", it.same.join(", ")),
    };
    let most = if wanted.all { it.causes.len() } else { FEW };
    let room = width.saturating_sub(INDENT);
    let mut texts: Vec<String> = it.not_run.iter().flat_map(|it| wrap(&not_run(it), room)).collect();
    texts.extend(it.causes.iter().take(most).map(cause));
    if it.causes.len() > most {
        texts.push(format!("{} more: --all", it.causes.len() - most));
    }
    if texts.is_empty() {
        texts.push("nothing that a key knows".to_owned());
    }
    match texts.last_mut() {
        Some(last) if !same.is_empty() && console::measure_text_width(last) + 4 + same.chars().count() <= room => {
            last.push_str(&format!("    {same}"));
        }
        _ if !same.is_empty() => texts.push(same),
        _ => {}
    }
    let named =
        |(number, text): (usize, &String)| line(if number == 0 { " cause" } else { "" }, &format::fit(text, room));
    texts.iter().enumerate().map(named).collect()
}

/// `g was skipped in quiet-otter: ` and why.
fn not_run(it: &NotRun) -> String {
    let reason = it.reason.as_deref().unwrap_or("its key was never known");
    format::clean(&format!("{} {} in {}: {reason}", it.stage, did(&it.status, it.was_tried), it.run))
}

fn cause(cause: &Cause) -> String {
    let what = format::clean(&cause.what);
    let stages = if cause.stages > 1 { format!("  (in {} stages)", cause.stages) } else { String::new() };
    let text = match (&cause.before, &cause.now) {
        (Some(before), Some(now)) => format!("{what} {}", change::apart(before, now).join(" → ")),
        (None, Some(now)) => format!("{what} is new: {}", change::value(now)),
        (Some(before), None) => format!("{what} is gone: {}", change::value(before)),
        (None, None) => format!("{what} changed"),
    };
    let by = match cause.given_by.is_empty() {
        true => String::new(),
        false => {
            let names = folded(cause.given_by.iter().map(StageId::as_str));
            format!(" (given by {})", format::clean(&format::listed(names.iter().map(String::as_str), FEW)))
        }
    };
    format!("{}{text}{stages}{by}", if cause.is_above { " ↳ " } else { "" })
}

/// The stages that ended otherwise, those that went the same way together.
pub(super) fn ends(it: &Diff, wanted: Wanted, width: usize, paint: Paint) -> Vec<String> {
    let mut ways: Vec<((&str, &str), Vec<&str>)> = Vec::new();
    for End { stage, before, now } in &it.ends {
        let way = (before.as_str(), now.as_str());
        match ways.iter_mut().find(|known| known.0 == way) {
            Some((_, stages)) => stages.push(stage.as_str()),
            None => ways.push((way, vec![stage.as_str()])),
        }
    }
    let most = if wanted.all { it.ends.len() } else { FEW };
    let room = width.saturating_sub(INDENT);
    let text = |((before, now), stages): ((&str, &str), Vec<&str>)| {
        let names = format::clean(&format::listed(stages, most));
        format!("{names}: {} → {}", paint.status(before), paint.status(now))
    };
    let texts = ways.into_iter().map(text).flat_map(|text| wrap(&text, room));
    texts.enumerate().map(|(number, text)| line(if number == 0 { " ends" } else { "" }, &text)).collect()
}

pub(super) fn results(it: &Diff, wanted: Wanted, width: usize, paint: Paint) -> Vec<String> {
    if it.figures.is_empty() && it.times.is_empty() {
        return Vec::new();
    }
    let run = |run: &RunId, limit: Option<u64>| match limit {
        Some(limit) => format!("{run} (limited to {})", format::count(limit)),
        None => run.to_string(),
    };
    let (before, now) = (run(&it.before, it.limit_before), run(&it.now, it.limit_now));
    let mut table = Table::new(["results", &before, &now, ""]).wrap(3);
    let most = if wanted.all { it.figures.len() } else { FEW };
    for figure in it.figures.iter().take(most) {
        let (before, now) = (figure.before.map_or(none(), format::figure), figure.now.map_or(none(), format::figure));
        table.row([format!(" {}", format::clean(&figure.name)), before, now, difference(figure, paint)]);
    }
    for time in &it.times {
        let share = (time.now / time.before - 1.0) * 100.0;
        let share = if share.is_finite() { format!("{share:+.0} %") } else { String::new() };
        let name = format!(" {}", format::clean(&time.name));
        table.row([name, format::duration(time.before), format::duration(time.now), share]);
    }
    let mut lines = table.lines(width);
    if it.figures.len() > most {
        lines.push(format!("  {} more figures: --all", it.figures.len() - most));
    }
    lines
}

fn none() -> String {
    "–".to_owned()
}

/// `+0.02 (95 % -0.08…+0.12) no clear difference`.
fn difference(figure: &Figure, paint: Paint) -> String {
    let (Some(before), Some(now)) = (figure.before, figure.now) else { return String::new() };
    let interval = figure
        .interval
        .map(|(lower, upper)| format!(" (95 % {}…{})", format::signed(lower), format::signed(upper)))
        .unwrap_or_default();
    let verdict = match figure.verdict {
        None => String::new(),
        Some(Verdict::NoClearDifference) => format!(" {}", paint.dim("no clear difference")),
        Some(Verdict::ClearDifference) => format!(" {}", paint.bold("clear difference")),
        Some(Verdict::ClearlyBetter) => format!(" {}", paint.green("clearly better")),
        Some(Verdict::ClearlyWorse) => format!(" {}", paint.red("clearly worse")),
    };
    format!("{}{interval}{verdict}", format::signed(now - before))
}
