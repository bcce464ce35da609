//! What is refused in a file beside what `tests/pipelines/invalid` shows.

use super::{load, operators::registry};
use crate::pipeline::{Overrides, SourceFile, load_with_profiles};

fn messages(text: &str, overrides: &Overrides) -> Vec<String> {
    let loaded = load_with_profiles(SourceFile::new("p.yaml", text), overrides, &registry());
    loaded.diagnostics.iter().map(|found| found.message.clone()).collect()
}

#[test]
fn a_profile_is_checked_though_another_is_chosen() {
    let text = r#"
params: {a: 2}
profiles:
  gpu: {stages: {unique: {with: {num_prem: 2}}}}
  big: {params: {a: x}}
  far: {stages: {rows: {with: {path: "${env.NOT_SET_ON_THIS_MACHINE}"}}}}
  fine: {params: {a: 3}, stages: {unique: {with: {threshold: 0.5}}}}
stages:
  rows: {op: data.load, with: {path: x}}
  unique: {op: data.dedup, in: rows, with: {num_perm: "${params.a}", thresh: 1}}
"#;
    let own = "`data.dedup` has no param `thresh`";
    let gpu = "with `--profile gpu`: `data.dedup` has no param `num_prem`";
    let big = "with `--profile big`: `params.a` is a whole number";
    assert_eq!(messages(text, &Overrides::default()), [gpu, big, own]);
    let chosen = Overrides { profile: Some("gpu".into()), ..Overrides::default() };
    assert_eq!(messages(text, &chosen), ["`data.dedup` has no param `num_prem`", big, own]);
}

#[test]
fn a_name_is_filled_as_a_store_is() {
    let rows = "stages: {rows: {op: data.load, with: {path: x}}}";
    let loaded =
        load(&format!("params: {{a: small}}\nname: \"${{params.a}}-1\"\nstore: \"${{params.a}}\"\n{rows}"), &["a=big"]);
    assert_eq!(loaded.diagnostics.to_string(), "");
    let pipeline = loaded.pipeline;
    assert_eq!((pipeline.name.as_str(), pipeline.is_named), ("big-1", true));
    assert_eq!(pipeline.store.unwrap().value, "big");
}

#[test]
fn a_store_that_is_no_place_is_not_opened() {
    let loaded = load("store: s3:/x\nstages: {rows: {op: data.load, with: {path: x}}}", &[]);
    let found: Vec<_> = loaded.diagnostics.iter().map(|found| (found.code.as_str(), found.span.is_some())).collect();
    assert_eq!(found, [("store/url", true)]);
    assert!(loaded.pipeline.store.is_none(), "else a folder of that name would be made");
}
