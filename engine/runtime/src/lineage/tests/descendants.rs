//! What was made of a result, where others gave the same bytes.

use super::*;

type Reads = (&'static str, Option<&'static str>);

/// Of these `rows`, `one` and `two` give the same.
const CHAIN: [Reads; 5] =
    [("rows", None), ("one", Some("rows")), ("two", Some("one")), ("side", Some("rows")), ("late", Some("side"))];

/// A run of stages, each with the one that it reads, and what they gave.
async fn run_of(lineage: &Lineage, name: &str, stages: &[Reads], gave: &[(&str, &str)]) {
    run_of_file(lineage, &file(), name, stages, gave).await;
}

async fn run_of_file(lineage: &Lineage, file: &PipelineRow, name: &str, stages: &[Reads], gave: &[(&str, &str)]) {
    let run = RunId(name.to_owned());
    let views: Vec<StageView> = stages.iter().map(|(stage, _)| view(stage, Vec::new())).collect();
    let read = |from: &str| InputRecord("data".into(), from.into(), "data".into(), InputAside::default());
    let planned = views.iter().zip(stages).map(|(view, (_, from))| PlannedRow {
        view,
        components: None,
        outgrown: None,
        inputs: from.iter().map(|from| read(from)).collect(),
        outputs: vec![(Port::from("data"), Kind::new("dataset/text"))],
    });
    lineage.start_run(&run, file, &planned.collect::<Vec<_>>()).await.unwrap();
    for (stage, content) in gave {
        tell(lineage, &run, Some(stage), What::Finished(super::gave("data", content.as_bytes()))).await;
    }
}

/// The stages that made something of what a stage gave.
async fn made_of(lineage: &Lineage, content: &str, stage: &str) -> Vec<String> {
    let found = lineage.descendants(&Digest::of(content.as_bytes()), &stage.into()).await.unwrap();
    let mut names: Vec<String> = found.all.iter().map(|made| made.stage.to_string()).collect();
    names.sort();
    names.dedup();
    names
}

#[tokio::test]
async fn what_others_made_of_the_same_bytes_is_not_a_stages_own_in_runs_that_have_it() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let same = [("rows", "same"), ("one", "same"), ("side", "side"), ("late", "late")];
    run_of(&lineage, "a-otter", &CHAIN, &[&same[..], &[("two", "same")]].concat()).await;
    assert!(made_of(&lineage, "same", "two").await.is_empty());
    run_of(&lineage, "b-otter", &CHAIN, &[&same[..], &[("two", "less")]].concat()).await;
    assert!(made_of(&lineage, "same", "two").await.is_empty(), "it gave something else");
    run_of(&lineage, "c-otter", &CHAIN, &same).await;
    assert!(made_of(&lineage, "same", "two").await.is_empty(), "it failed");
    assert_eq!(made_of(&lineage, "same", "one").await, ["two"]);
    assert_eq!(made_of(&lineage, "same", "rows").await, ["late", "one", "side", "two"]);
}

#[tokio::test]
async fn what_others_made_of_the_same_bytes_counts_in_runs_without_the_stage_unless_it_stands_above() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let same = [("rows", "same"), ("one", "same"), ("two", "same"), ("side", "side"), ("late", "late")];
    run_of(&lineage, "a-otter", &CHAIN, &same).await;
    let without = [CHAIN[0], CHAIN[1], CHAIN[3]];
    run_of(&lineage, "b-otter", &without, &[("rows", "same"), ("one", "same"), ("side", "side")]).await;
    assert!(made_of(&lineage, "same", "two").await.is_empty(), "`one` and `rows` are what it is made of");
    run_of(&lineage, "c-otter", &[("load", None), ("kept", Some("load"))], &[("load", "same"), ("kept", "kept")]).await;
    assert_eq!(made_of(&lineage, "same", "two").await, ["kept"], "from when it had another name");
    let other = PipelineRow { name: "other".into(), ..file() };
    let stages = [("rows", None), ("two", Some("rows")), ("load", None), ("trained", Some("load"))];
    let gave = [("rows", "else"), ("two", "other"), ("load", "same"), ("trained", "trained")];
    run_of_file(&lineage, &other, "d-otter", &stages, &gave).await;
    let made = made_of(&lineage, "same", "two").await;
    assert_eq!(made, ["kept", "trained"], "another pipeline may have a stage of the same name");
}
