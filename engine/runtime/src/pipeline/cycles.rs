//! Stages that wait for each other.

use std::collections::HashSet;

use super::{check::Checker, def::StageDef, diagnostic::Diagnostic, source::Span};

/// Stages of a circle that a message names.
const NAMED: usize = 12;

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    New,
    OnPath,
    Done,
}

impl Checker<'_> {
    /// Reports each cycle once, and marks its stages as not sound. Depth-first, without recursion.
    pub(super) fn cycles(&mut self, stages: &mut [StageDef]) {
        let mut state = vec![Visit::New; stages.len()];
        let mut broken = Vec::new();
        let mut closed = HashSet::new();
        for root in 0..stages.len() {
            if state[root] != Visit::New {
                continue;
            }
            let mut path: Vec<(usize, usize)> = vec![(root, 0)];
            state[root] = Visit::OnPath;
            while let Some((at, next)) = path.last_mut() {
                let Some((to, span)) = need(&stages[*at], *next) else {
                    state[*at] = Visit::Done;
                    path.pop();
                    continue;
                };
                *next += 1;
                match state[to] {
                    Visit::New => {
                        state[to] = Visit::OnPath;
                        path.push((to, 0));
                    }
                    // The combinations of a matrix close the same circle at the same place.
                    Visit::OnPath if closed.insert(span) => {
                        let start = path.iter().position(|(at, _)| *at == to).unwrap_or(0);
                        // Each edge points to what is needed: reversed, it is the order of running.
                        let members: Vec<usize> = path[start..].iter().rev().map(|(at, _)| *at).collect();
                        broken.push((members, span));
                    }
                    Visit::OnPath | Visit::Done => {}
                }
            }
        }
        for (members, span) in broken {
            let mut names: Vec<&str> = members.iter().take(NAMED).map(|at| stages[*at].id.as_str()).collect();
            if members.len() > NAMED {
                names.push("…");
            }
            names.push(names[0]);
            let message = match members.len() {
                1 => format!("stage `{}` needs itself", names[0]),
                _ => format!("stages wait for each other: {}", names.join(" → ")),
            };
            let help = "let a stage of the circle read something else, or drop its `after`";
            let diagnostic = Diagnostic::new("stage/cycle", message, span).label("this closes the circle");
            self.diagnostics.push(diagnostic.help(help));
            members.into_iter().for_each(|at| stages[at].sound = false);
        }
    }
}

/// The n-th stage that one waits for, and the place that says so.
fn need(stage: &StageDef, n: usize) -> Option<(usize, Span)> {
    let mut n = n;
    for (_, refs) in stage.inputs.iter() {
        match refs.get(n) {
            Some(input) => return Some((input.index as usize, input.span)),
            None => n -= refs.len(),
        }
    }
    match stage.shared.fills.get(n) {
        Some(fill) => return Some((fill.read.index as usize, fill.span)),
        None => n -= stage.shared.fills.len(),
    }
    if let Some(when) = &stage.when {
        match when.reads.get(n) {
            Some(read) => return Some((read.index as usize, when.span)),
            None => n -= when.reads.len(),
        }
    }
    stage.after.get(n).map(|after| (after.index as usize, after.span))
}
