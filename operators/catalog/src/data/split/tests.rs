use llmflow_contract::{Artifact, Operator as _};
use llmflow_dataset::{Content, Dataset, Meta, Row, RowKind};

use super::{Params, Split, spec::In};
use crate::testing::{TestHost, artifact, known};

/// Texts of 40 words; every third repeats its neighbour with one word changed.
fn rows() -> Vec<Row> {
    let text = |n: usize| {
        let own = if n % 3 == 2 { n - 1 } else { n };
        let mut words: Vec<String> = (0..40).map(|word| format!("w{own}x{word}")).collect();
        words[39] = format!("end{n}");
        words.join(" ")
    };
    (0..60).map(|n| Row::new(Content::Text(text(n)), Meta::new())).collect()
}

fn split(seed: u64, test_size: f64) -> (Vec<Row>, Vec<Row>) {
    let host = TestHost::new();
    let data = Artifact::new(host.dataset(RowKind::Text, rows()));
    let params = Params { test_size, ..Params::default() };
    let out = Split::run(params, In { data }, &host.context_with_seed(seed)).unwrap();
    let read = |made| Dataset::open(&artifact(made)).unwrap().read_all().unwrap();
    (read(out.train.into_any()), read(out.test.into_any()))
}

#[test]
fn near_duplicates_never_straddle_and_nothing_is_lost() {
    let (train, test) = split(42, 0.2);
    assert_eq!(test.len(), 12);
    assert_eq!(train.len() + test.len(), 60);
    let group = |row: &Row| row.text().split('x').next().unwrap().to_owned();
    for row in &test {
        assert!(train.iter().all(|other| group(other) != group(row)), "{} straddles", group(row));
    }
}

#[test]
fn the_seed_decides_and_a_whole_number_counts_rows() {
    assert_eq!(split(42, 5.0), split(42, 5.0));
    assert_eq!(split(42, 5.0).1.len(), 5);
    assert_ne!(split(42, 5.0).1, split(43, 5.0).1);
}

#[test]
fn a_size_that_is_neither_share_nor_count_is_refused() {
    let mut params = Params { test_size: 1.5, ..Params::default() };
    let failure = Split::plan(&mut params, &known("".into(), &[])).unwrap_err();
    assert_eq!(failure.param.as_deref(), Some("test_size"));
}
