use llmflow_contract::{Artifact, Operator as _};
use llmflow_dataset::{Content, Dataset, Meta, Row, RowKind, Verdict};

use super::{Filter, Params, run::judge, spec::In};
use crate::testing::{TestHost, artifact, known};

fn text(text: &str) -> Row {
    Row::new(Content::Text(text.into()), Meta::new())
}

fn rule(params: &Params, of: &str) -> Option<String> {
    match judge(params, &text(of)) {
        Verdict::Drop { rule, .. } => Some(rule.into_owned()),
        _ => None,
    }
}

#[test]
fn each_rule_drops_what_it_names_and_nothing_else() {
    let off = Params::default();
    assert_eq!(rule(&off, ""), None);
    assert_eq!(rule(&Params { min_words: Some(3), ..off.clone() }, "two words"), Some("too_short".into()));
    assert_eq!(rule(&Params { min_words: Some(2), ..off.clone() }, "two words"), None);
    assert_eq!(rule(&Params { max_chars: Some(3), ..off.clone() }, "éééé"), Some("too_long".into()));
    let lines = Params { max_repeated_lines: Some(0.3), ..off.clone() };
    assert_eq!(rule(&lines, "a\na\nb\n"), Some("repeated_lines".into()));
    assert_eq!(rule(&lines, "a\nb\nc\n"), None);
    let runs = Params { max_repeated_ngrams: Some(0.2), ..off.clone() };
    assert_eq!(rule(&runs, &"again and again and ".repeat(10)), Some("repeated_ngrams".into()));
    assert_eq!(rule(&Params { min_alpha_ratio: Some(0.5), ..off.clone() }, "1234 ab"), Some("few_letters".into()));
    assert_eq!(rule(&Params { max_symbol_ratio: Some(0.5), ..off }, "#### a"), Some("many_symbols".into()));
}

#[test]
fn the_rows_that_stay_keep_their_order_and_the_report_counts_the_others() {
    let host = TestHost::new();
    let data = host.dataset(RowKind::Text, [text("one two three"), text("one"), text("four five six")]);
    let params = Params { min_words: Some(2), ..Params::default() };
    let out = Filter::run(params, In { data: Artifact::new(data) }, &host.context()).unwrap();
    let kept = Dataset::open(&artifact(out.data.into_any())).unwrap().read_all().unwrap();
    assert_eq!(kept, [text("one two three"), text("four five six")]);
    assert_eq!(host.stage_report().summary, "2 kept · 1 too_short");
    assert_eq!(host.progress_seen().last().unwrap().done, 3);
}

#[test]
fn bounds_that_no_row_can_meet_are_refused_at_planning() {
    let mut params = Params { min_words: Some(9), max_words: Some(3), ..Params::default() };
    let failure = Filter::plan(&mut params, &known("".into(), &[])).unwrap_err();
    assert_eq!(failure.param.as_deref(), Some("min_words"));
}
