use std::{collections::HashSet, io::Read as _, path::Path};

use llmflow_contract::{Artifact, Operator as _};
use llmflow_dataset::{Content, Dataset, Fate, Meta, Row, RowKind, TraceReader};

use super::{Dedup, Method, Params, spec::In};
use crate::{
    data::near_duplicates::{self, Settings},
    testing::{TestHost, artifact, shared_data},
};

fn text(text: &str) -> Row {
    Row::new(Content::Text(text.into()), Meta::new())
}

fn dedup(host: &TestHost, params: Params, inputs: &[&[Row]]) -> Vec<Row> {
    let artifacts = inputs.iter().map(|rows| Artifact::new(host.dataset(RowKind::Text, rows.iter().cloned())));
    let inputs = In { data: artifacts.collect() };
    let out = Dedup::run(params, inputs, &host.context()).unwrap();
    Dataset::open(&artifact(out.data.into_any())).unwrap().read_all().unwrap()
}

#[test]
fn of_equal_rows_the_first_of_the_first_dataset_stays_and_the_trace_says_which() {
    let host = TestHost::new();
    let params = Params { method: Method::Exact, ..Params::default() };
    let kept = dedup(&host, params, &[&[text("a"), text("b")], &[text("b"), text("c")]]);
    assert_eq!(kept, [text("a"), text("b"), text("c")]);
    let trace: Vec<_> = TraceReader::open(&host.output_folder("trace").unwrap()).unwrap().map(Result::unwrap).collect();
    assert_eq!((trace[2].verdict, trace[2].input), (Fate::Dropped, 1));
    assert_eq!(trace[2].evidence.as_ref().unwrap()["kept"], text("b").id.as_str());
    assert_eq!(host.stage_report().summary, "3 kept · 1 duplicate");
    assert_eq!(host.metric("dropped"), Some(1.0));
}

#[test]
fn a_cancelled_stage_stops() {
    let host = TestHost::new();
    let inputs = In { data: vec![Artifact::new(host.dataset(RowKind::Text, [text("a")]))] };
    host.cancel();
    assert!(Dedup::run(Params::default(), inputs, &host.context()).is_err());
}

/// The true pairs of a set of real documents, found by comparing all of them.
fn truth(folder: &Path, threshold: f64) -> HashSet<(usize, usize)> {
    let text = unpacked(&folder.join("pairs.tsv.gz"));
    let pair = |line: &str| {
        let mut cells = line.split('\t');
        let (a, b) = (cells.next()?.parse().ok()?, cells.next()?.parse().ok()?);
        (cells.next()?.parse::<f64>().ok()? >= threshold).then_some((a, b))
    };
    text.lines().skip(1).filter_map(pair).collect()
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

/// The text of one document that the truth was made of.
fn compared_text(set: &str, line: &str) -> String {
    let row: serde_json::Value = serde_json::from_str(line).unwrap();
    let field = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    match set {
        "toolformer" => format!("{}\n{}\n{}", field("instruction"), field("input"), field("response")),
        "t0-prompts" => field("prompt"),
        _ => field("text"),
    }
}

/// Documents that stay when every group joined by true pairs keeps one.
fn kept_by(pairs: &HashSet<(usize, usize)>, documents: usize) -> usize {
    let mut first: Vec<usize> = (0..documents).collect();
    loop {
        let before = first.clone();
        for (a, b) in pairs {
            let least = first[*a].min(first[*b]);
            (first[*a], first[*b]) = (least, least);
        }
        if before == first {
            return first.iter().enumerate().filter(|(index, first)| index == *first).count();
        }
    }
}

#[test]
fn real_sets_keep_what_a_comparison_of_all_pairs_keeps() {
    let Some(root) = shared_data("dedup") else { return };
    let settings = Settings { ngram: 5, num_perm: 112, threshold: 0.8 };
    for set in ["debian-copyright", "tldr-pages", "toolformer", "t0-prompts"] {
        let documents = unpacked(&root.join(set).join("docs.jsonl.gz"));
        let sets: Vec<_> = documents.lines().map(|line| settings.shingles(&compared_text(set, line))).collect();
        let host = TestHost::new();
        let found = near_duplicates::clusters(&host.context(), &sets, &settings).unwrap();
        let truth = truth(&root.join(set), settings.threshold);
        let joined = truth.iter().filter(|(a, b)| found.first[*a] == found.first[*b]).count();
        let right = found.verified.iter().filter(|pair| truth.contains(pair)).count();
        let kept = found.first.iter().enumerate().filter(|(index, first)| index == *first).count();
        let expected = kept_by(&truth, sets.len());
        let recall = joined as f64 / truth.len() as f64;
        let precision = right as f64 / found.verified.len() as f64;
        println!("{set}: recall {recall:.4} precision {precision:.4} kept {kept} (all pairs: {expected})");
        assert!(recall >= 0.99, "{set}: recall {recall}");
        assert!(precision >= 0.99, "{set}: precision {precision}");
        assert!(kept.abs_diff(expected) * 200 <= expected, "{set}: {kept} kept, {expected} by all pairs");
    }
}

#[test]
fn equal_inputs_give_the_bytes_of_version_1_on_any_number_of_threads() {
    let rows: Vec<Row> = (0..300).map(|n| text(&format!("row {} says a thing or two, {}", n % 200, n % 7))).collect();
    let digest = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let host = TestHost::new();
        let inputs = In { data: vec![Artifact::new(host.dataset(RowKind::Text, rows.iter().cloned()))] };
        let out = pool.install(|| Dedup::run(Params::default(), inputs, &host.context())).unwrap();
        artifact(out.data.into_any()).digest.short()
    };
    assert_eq!(digest(1), digest(4));
    // Changes only with `Dedup::VERSION`, or with how rows are written.
    assert_eq!((Dedup::VERSION, digest(2).as_str()), (1, "6a62acf6"));
}
