//! The screen of `explain`: which parts of a key changed, which did not, and what follows.

use jiff::ZonedDateTime;
use llmflow_contract::StageId;
use llmflow_runtime::plan::{Change, Component};
use serde::Serialize;

use super::{change, format, style::Paint, table::Table, when};

/// Changes above, and stages below, that are listed.
const MOST: usize = 8;

/// Why a stage did what it did.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    pub stage: StageId,
    pub run: String,
    /// As in lineage: `ran`, `cached`, `skipped` …
    pub status: String,
    /// Whether it keeps its result whatever its key would be.
    pub is_frozen: bool,
    /// Whether the parts of its key are known together with those they are compared with.
    pub is_compared: bool,
    /// Why it was going to run although nothing of its key had changed: `--force`.
    pub asked: Option<String>,
    /// Whether any attempt was made: a result that was there can be refused too.
    pub was_tried: bool,
    /// What its key is made of, once that was known.
    pub components: Option<Vec<Component>>,
    /// The success it is compared with: its run and when that started.
    pub before: Option<(String, u64)>,
    pub changes: Vec<Change>,
    /// Where inputs changed: what changed in the stages above.
    pub culprits: Vec<Culprit>,
    /// Stages that followed it, and the seconds they took.
    pub then: Vec<StageId>,
    pub then_seconds: f64,
    /// Stages that would have followed, and found the same bytes.
    pub same: Vec<StageId>,
    /// `--set rank=16`: finds the earlier result again.
    pub back: Vec<String>,
    /// Why it was skipped or failed.
    pub reason: Option<String>,
}

/// A change above a stage that made its inputs other ones.
#[derive(Clone, Debug, Serialize)]
pub struct Culprit {
    pub stage: StageId,
    #[serde(flatten)]
    pub change: Change,
}

/// The whole screen.
pub fn explain(it: &Explained, now: &ZonedDateTime, width: usize, paint: Paint) -> String {
    let mut lines = vec![headline(it, now)];
    if let Some(reason) = &it.reason {
        lines.push(format!("  {}", format::clean(reason)));
    }
    let mut table = Table::new(["", "", ""]).wrap(2);
    for change in &it.changes {
        let origin = change.origin.as_deref().map(format::clean).unwrap_or_default();
        table.row([format!(" {}", format::clean(&change.part)), paint.bold(&change::values(change)), origin]);
    }
    for Culprit { stage, change } in it.culprits.iter().take(MOST) {
        let part = change.part.strip_prefix("with.").unwrap_or(&change.part);
        let origin = change.origin.as_deref().map(format::clean).unwrap_or_default();
        let name = format!("   ↳ {}.{}", format::clean(stage.as_str()), format::clean(part));
        table.row([name, paint.bold(&change::values(change)), origin]);
    }
    if it.culprits.len() > MOST {
        table.line(format!("    ↳ {} more above", it.culprits.len() - MOST));
    }
    lines.extend(table.lines(width));
    if let Some(components) = it.components.as_ref().filter(|_| it.is_compared) {
        let same = same(components, &it.changes);
        if !same.is_empty() {
            lines.push(format!("same: {same}"));
        }
    }
    lines.extend(then(it));
    if !it.back.is_empty() {
        lines.push(format!("back: {} finds the finished result again", format::clean(&it.back.join(" "))));
    }
    lines.join("\n") + "\n"
}

/// What followed; of a stage that did not run, nothing did.
fn then(it: &Explained) -> Option<String> {
    let names = |stages: &[StageId]| format::clean(&format::listed(stages.iter().map(StageId::as_str), MOST));
    match (it.status.as_str(), it.then.is_empty(), it.same.is_empty()) {
        ("cached" | "skipped" | "not started", ..) | (_, true, true) => None,
        (_, false, _) => Some(format!("then: {}   (took {})", names(&it.then), format::duration(it.then_seconds))),
        (_, true, false) => {
            Some(format!("then: nothing; it gave the same bytes, so {} stayed cached", names(&it.same)))
        }
    }
}

/// What became of a stage, as a sentence goes on: `was skipped`.
pub fn did(status: &str, was_tried: bool) -> String {
    match status {
        "refused" if was_tried => "ran".to_owned(),
        "refused" => "was cached".to_owned(),
        "failed" => "ran, and failed,".to_owned(),
        "interrupted" | "running" => "was started".to_owned(),
        "not started" | "skipped" | "cached" => format!("was {status}"),
        status => status.to_owned(),
    }
}

fn headline(it: &Explained, now: &ZonedDateTime) -> String {
    let (stage, run) = (format::clean(it.stage.as_str()), &it.run);
    let said = format!("{stage} {} in {run}", did(&it.status, it.was_tried));
    let Some(components) = &it.components else {
        // What kept it from running is said below.
        return if it.reason.is_some() { said } else { format!("{said}: its key was never known") };
    };
    if it.is_frozen {
        let though = match it.changes.len() {
            0 => String::new(),
            1 => ", though 1 part of its key is another now".to_owned(),
            count => format!(", though {count} parts of its key are others now"),
        };
        return format!("{said}: it is frozen, and keeps the result it has{though}");
    }
    let total = components.len().max(it.changes.len());
    let before = it.before.as_ref().map(|(run, at_ms)| format!("{run} ({})", when::ago(*at_ms, now)));
    let asked = it.asked.as_deref().map(format::clean);
    match (it.status.as_str(), before, it.changes.len()) {
        ("skipped" | "not started", ..) => said,
        ("cached", Some(before), 0) => format!("{said}: none of the {total} parts of its key changed since {before}"),
        ("cached", ..) => format!("{said}: a result with all {total} parts of its key was in the store"),
        ("refused", Some(before), 0) if !it.was_tried => {
            format!("{said}: none of the {total} parts of its key changed since {before}")
        }
        ("refused", ..) if !it.was_tried => {
            format!("{said}: a result with all {total} parts of its key was in the store")
        }
        (_, Some(before), 0) => match asked {
            Some(asked) => format!("{said}: {asked}; nothing changed since {before}"),
            None => format!("{said}, though nothing changed since {before}: its result was no longer in the store"),
        },
        (_, None, _) => match asked {
            Some(asked) => format!("{said}: {asked}; no run before it has a result of this stage"),
            None => format!("{said}: no run before it has a result of this stage"),
        },
        (_, Some(before), count) => {
            let asked = asked.map(|asked| format!("{asked}; ")).unwrap_or_default();
            format!("{said}: {asked}{count} of {total} parts of its key changed since {before}")
        }
    }
}

/// `train.sft v3 · in.model · seed 42 · cpu/f32 · 8 params`.
fn same(components: &[Component], changes: &[Change]) -> String {
    let same = components.iter().filter(|component| changes.iter().all(|change| change.part != component.part));
    let (mut words, mut params) = (Vec::new(), 0);
    for component in same {
        match component.part.as_str() {
            "operator" | "numerics" => words.push(change::value(&component.value)),
            "seed" => words.push(format!("seed {}", component.value)),
            part if part.starts_with("with.") => params += 1,
            part => words.push(format::clean(part)),
        }
    }
    match params {
        0 => {}
        1 => words.push("1 param".to_owned()),
        _ => words.push(format!("{params} params")),
    }
    words.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(status: &str, changes: Vec<Change>) -> Explained {
        let part = |part: &str, value: &str| Component { part: part.into(), value: value.into() };
        Explained {
            stage: StageId::from("sft"),
            run: "calm-heron".into(),
            status: status.into(),
            is_frozen: false,
            is_compared: true,
            asked: None,
            was_tried: true,
            components: Some(vec![
                part("operator", "train.sft v3"),
                part("with.lora_r", "32"),
                part("with.method", "\"lora\""),
                part("in.model", "7c1e"),
                part("seed", "42"),
                part("numerics", "cpu/f32"),
            ]),
            before: Some(("quiet-otter".into(), 1_795_414_920_000)),
            changes,
            culprits: Vec::new(),
            then: vec![StageId::from("merged"), StageId::from("gguf")],
            then_seconds: 460.0,
            same: Vec::new(),
            back: Vec::new(),
            reason: None,
        }
    }

    fn shown(it: &Explained) -> String {
        let now =
            jiff::Timestamp::from_millisecond(1_795_500_000_000).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC);
        explain(it, &now, 100, Paint(false))
    }

    #[test]
    fn a_stage_that_ran_says_which_part_of_its_key_changed_and_the_way_back() {
        let change = Change {
            part: "with.lora_r".into(),
            before: Some("16".into()),
            now: Some("32".into()),
            origin: Some("params.rank, assistant.yaml:10, set by --set".into()),
        };
        let mut it = explained("ran", vec![change]);
        it.back = vec!["--set rank=16".into()];
        insta::assert_snapshot!(shown(&it), @r"
        sft ran in calm-heron: 1 of 6 parts of its key changed since quiet-otter (yesterday 06:22)
          with.lora_r  16 → 32  params.rank, assistant.yaml:10, set by --set
        same: train.sft v3 · in.model · seed 42 · cpu/f32 · 1 param
        then: merged, gguf   (took 7m40s)
        back: --set rank=16 finds the finished result again
        ");
    }

    #[test]
    fn an_input_that_changed_leads_to_what_changed_above() {
        let changed = |part: &str, before: &str, now: &str, origin: &str| Change {
            part: part.into(),
            before: Some(before.into()),
            now: Some(now.into()),
            origin: Some(origin.into()),
        };
        let mut it = explained("ran", vec![changed("in.model", "aa", "bb", "given by base")]);
        let change = changed("with.dtype", "float32", "float16", "");
        it.culprits = vec![Culprit { stage: StageId::from("base"), change }];
        let text = shown(&it);
        assert!(text.contains("  in.model        changed            given by base\n"), "{text}");
        assert!(text.contains("    ↳ base.dtype  float32 → float16\n"), "{text}");
    }

    #[test]
    fn each_other_end_has_its_own_sentence() {
        let first = |it: &Explained| shown(it).lines().next().unwrap().to_owned();
        assert!(
            first(&explained("cached", Vec::new()))
                .contains("none of the 6 parts of its key changed since quiet-otter")
        );
        assert!(first(&explained("ran", Vec::new())).contains("no longer in the store"));
        let forced = Explained { asked: Some("--force".into()), ..explained("ran", Vec::new()) };
        assert!(first(&forced).contains("ran in calm-heron: --force; nothing changed since quiet-otter"));
        let refused = Explained { was_tried: false, ..explained("refused", Vec::new()) };
        assert!(first(&refused).contains("was cached in calm-heron: none of the 6 parts"));
        assert!(first(&explained("skipped", Vec::new())).ends_with("was skipped in calm-heron"));
        let frozen = Explained { is_frozen: true, is_compared: false, ..explained("cached", Vec::new()) };
        assert!(first(&frozen).ends_with("frozen, and keeps the result it has") && !shown(&frozen).contains("same:"));
        let (before, now) = (Some("42".to_owned()), Some("43".to_owned()));
        let change = Change { part: "seed".into(), before, now, origin: None };
        let frozen = Explained { is_frozen: true, ..explained("cached", vec![change]) };
        assert!(first(&frozen).ends_with("though 1 part of its key is another now"));
        assert!(shown(&frozen).contains("seed  42 → 43") && !shown(&frozen).contains("seed 42"));
        let mut it = explained("ran", Vec::new());
        it.same = std::mem::take(&mut it.then);
        assert!(shown(&it).contains("then: nothing; it gave the same bytes, so merged, gguf stayed cached"));
        it.before = None;
        assert!(first(&it).contains("no run before it has a result"));
        it.components = None;
        it.status = "skipped".into();
        assert!(first(&it).ends_with("its key was never known"));
        it.reason = Some("`rows` failed".into());
        assert!(first(&it).ends_with("was skipped in calm-heron"));
        assert_eq!(shown(&it).lines().nth(1), Some("  `rows` failed"));
    }
}
