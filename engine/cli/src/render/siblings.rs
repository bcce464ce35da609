//! What a row of `plan` says, and of which stages: siblings of a matrix that run, or wait, for the same reason share one.

use indexmap::IndexMap;
use llmflow_contract::StageId;
use llmflow_runtime::plan::{Change, StageView};

use super::{change, format};

/// Names that one line of names shows.
const NAMES: usize = 60;

/// Stages that do the same for the same reason.
pub struct Row<'a> {
    pub stages: Vec<&'a StageView>,
    pub will: &'static str,
    /// Of each of the stages.
    reasons: Vec<Reason<'a>>,
}

/// Why a stage runs, or waits.
pub enum Reason<'a> {
    /// `--force`, `failed before`.
    Asked(&'a str),
    /// What changed since its last success; nothing where there is none.
    Changes(&'a [Change]),
    /// `for`, or `on`, these; what changed already.
    Stages(&'static str, &'a [StageId], &'a [Change]),
}

/// Adds a stage to the rows of its siblings, which stand last.
pub fn add<'a>(rows: &mut Vec<Row<'a>>, stage: &'a StageView, will: &'static str, reason: Reason<'a>) {
    let name = base(&stage.stage);
    let is_of_matrix = name != stage.stage.as_str();
    let mut siblings = rows.iter_mut().rev().take_while(|row| is_of_matrix && base(&row.stages[0].stage) == name);
    match siblings.find(|row| row.will == will && row.reasons[0].is_like(&reason)) {
        Some(row) => {
            row.stages.push(stage);
            row.reasons.push(reason);
        }
        None => rows.push(Row { stages: vec![stage], will, reasons: vec![reason] }),
    }
}

impl Reason<'_> {
    /// The same reason, though what was before may be another.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Asked(one), Self::Asked(other)) => one == other,
            (Self::Changes(_), Self::Changes(_)) => self.parts().eq(other.parts()),
            (Self::Stages(word, some, _), Self::Stages(another, others, _)) => {
                word == another && some.iter().map(base).eq(others.iter().map(base)) && self.parts().eq(other.parts())
            }
            _ => false,
        }
    }

    fn changes(&self) -> &[Change] {
        match self {
            Self::Asked(_) => &[],
            Self::Changes(changes) | Self::Stages(_, _, changes) => changes,
        }
    }

    fn parts(&self) -> impl Iterator<Item = &str> {
        self.changes().iter().map(|change| change.part.as_str())
    }
}

impl Row<'_> {
    pub fn name(&self) -> String {
        match self.stages[..] {
            [one] => one.stage.to_string(),
            _ => format!("{}@… ×{}", base(&self.stages[0].stage), format::count(self.stages.len() as u64)),
        }
    }

    /// The reason of all its stages; where their values are not the same, without those.
    pub fn because(&self) -> String {
        match &self.reasons[0] {
            Reason::Asked(asked) => (*asked).to_owned(),
            Reason::Changes([]) => "first run".to_owned(),
            Reason::Changes(_) => self.changes().join(", "),
            Reason::Stages(word, ids, _) => {
                let names = (0..ids.len()).map(|at| self.stage(at)).collect::<Vec<_>>();
                let names = folded(names.iter().map(String::as_str));
                let waits = format!("{word} {}", some_names(names.iter().map(String::as_str)));
                std::iter::once(waits).chain(self.changes()).collect::<Vec<_>>().join(", ")
            }
        }
    }

    fn changes(&self) -> Vec<String> {
        (0..self.reasons[0].changes().len()).map(|at| self.change(at)).collect()
    }

    /// `with.max_words 20 → 40`; of several values before `with.max_words → 40`; of several now `with.max_words changed`.
    fn change(&self, at: usize) -> String {
        let all = || self.reasons.iter().filter_map(move |reason| reason.changes().get(at));
        let Some(first) = all().next() else { return String::new() };
        let same = |of: fn(&Change) -> &Option<String>| all().all(|other| of(other) == of(first));
        let origin = first.origin.clone().filter(|_| same(|change| &change.origin));
        let part = format::clean(&first.part);
        match (same(|change| &change.before), same(|change| &change.now), &first.now) {
            (true, true, _) => change::change(&Change { origin, ..first.clone() }),
            (false, true, Some(now)) if !change::is_content(&first.part) => {
                format!("{part} → {}{}", change::value(now), change::told_origin(origin.as_deref()))
            }
            _ => format!("{part} changed{}", change::told_origin(origin.as_deref())),
        }
    }

    /// A stage that all of them wait for; `sft@…` where it is a sibling's own.
    fn stage(&self, at: usize) -> String {
        let all = || {
            self.reasons.iter().filter_map(move |reason| match reason {
                Reason::Stages(_, ids, _) => Some(&ids[at]),
                _ => None,
            })
        };
        let first = all().next().map(StageId::to_string).unwrap_or_default();
        match all().all(|id| id.as_str() == first) {
            true => first,
            false => format!("{}@…", first.split('@').next().unwrap_or_default()),
        }
    }
}

/// The name of a stage without its combination of a matrix.
fn base(stage: &StageId) -> &str {
    let name = stage.as_str();
    name.split_once('@').map_or(name, |(base, _)| base)
}

/// Names in their order, those of several combinations of a matrix as one: `f@… ×30`.
pub fn folded<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut by_matrix: IndexMap<&str, (&str, u64)> = IndexMap::new();
    for name in names {
        let matrix = name.find('@').map_or(name, |at| &name[..=at]);
        by_matrix.entry(matrix).or_insert((name, 0)).1 += 1;
    }
    let named = |(matrix, (name, count)): (&str, (&str, u64))| match count {
        2.. if matrix.ends_with('@') => format!("{matrix}… ×{}", format::count(count)),
        _ => name.to_owned(),
    };
    by_matrix.into_iter().map(named).collect()
}

/// A line of names, the last of many counted.
pub fn some_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let shown = names.iter().take(NAMES).copied().collect::<Vec<_>>().join(" ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} … {} more", format::count(more as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture::view;

    fn change(part: &str, before: &str, now: &str) -> Change {
        Change { part: part.into(), before: Some(before.into()), now: Some(now.into()), origin: None }
    }

    /// The rows of `f@0`, `f@1` … with these changes.
    fn told(changes: &[Vec<Change>]) -> Vec<String> {
        let views: Vec<StageView> = (0..changes.len()).map(|number| view(&format!("f@{number}"), &[])).collect();
        let mut rows = Vec::new();
        for (view, changes) in views.iter().zip(changes) {
            add(&mut rows, view, "run", Reason::Changes(changes));
        }
        rows.iter().map(|row| format!("{}: {}", row.name(), row.because())).collect()
    }

    #[test]
    fn siblings_share_a_row_where_the_reason_is_the_same_and_it_tells_only_what_is_true_of_all() {
        let words = |before, now| vec![change("with.max_words", before, now)];
        assert_eq!(told(&[words("9", "40"), words("9", "40")]), ["f@… ×2: with.max_words 9 → 40"]);
        assert_eq!(told(&[words("9", "40"), words("8", "40")]), ["f@… ×2: with.max_words → 40"]);
        assert_eq!(told(&[words("9", "40"), words("8", "41")]), ["f@… ×2: with.max_words changed"]);
        let other = || vec![change("in.data", "a", "b")];
        assert_eq!(
            told(&[other(), words("9", "40"), vec![change("in.data", "c", "d")], Vec::new()]),
            ["f@… ×2: in.data changed", "f@1: with.max_words 9 → 40", "f@3: first run"]
        );
    }

    #[test]
    fn siblings_that_wait_for_siblings_name_those_together() {
        let (views, one, two) = (
            ["g@1", "g@2"].map(|name| view(name, &[])),
            ["f@1", "x"].map(StageId::from),
            ["f@2", "x"].map(StageId::from),
        );
        let mut rows = Vec::new();
        add(&mut rows, &views[0], "waits", Reason::Stages("for", &one, &[]));
        add(&mut rows, &views[1], "waits", Reason::Stages("for", &two, &[]));
        assert_eq!((rows.len(), rows[0].because().as_str()), (1, "for f@… x"));
    }

    #[test]
    fn a_stage_that_gathers_a_matrix_waits_for_it_in_few_words() {
        let (gathers, on) = (view("d", &[]), ["x", "f@w=1,r=0.1", "f@w=1,r=0.2", "g@1"].map(StageId::from));
        let mut rows = Vec::new();
        add(&mut rows, &gathers, "waits", Reason::Stages("for", &on, &[]));
        assert_eq!(rows[0].because(), "for x f@… ×2 g@1");
    }
}
