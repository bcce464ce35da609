//! What of earlier runs a run is compared with.

use super::*;
use crate::plan::Tried;

#[tokio::test]
async fn a_figure_of_a_run_is_that_of_the_last_stage_of_the_plan_whichever_ended_last() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let run = start(&lineage, "quiet-otter").await;
    for (stage, acc) in [("sft", 0.9), ("load", 0.1)] {
        let metrics = BTreeMap::from([("acc".to_owned(), acc)]);
        tell(&lineage, &run, Some(stage), What::Finished(Finished { metrics, ..gave("data", b"a") })).await;
    }
    assert_eq!(lineage.figures_of_run(&run, &["acc"]).await.unwrap()["acc"], 0.9);
}

#[tokio::test]
async fn a_stage_that_was_tried_in_vain_is_no_new_one() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let run = start(&lineage, "quiet-otter").await;
    let [load, sft] = ["load", "sft"].map(StageId::from);
    tell(&lineage, &run, Some("load"), What::Started { attempt: 1 }).await;
    let failure = Failure::input("x", "bad");
    tell(&lineage, &run, Some("load"), What::Failed { failure, retry_in_ms: None }).await;
    tell(&lineage, &run, Some("sft"), What::Skipped { because: "`load` failed".into() }).await;
    let tried = lineage.last_tries("p", None, &[&load, &sft]).await.unwrap();
    assert_eq!(tried, [(load, Tried::Failed)].into());
}

#[tokio::test]
async fn a_rehearsal_is_compared_with_a_rehearsal_and_a_run_with_a_run() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let sft = StageId::from("sft");
    let mut runs = Vec::new();
    for (name, limit) in [("a-otter", None), ("b-otter", Some(1)), ("c-otter", None), ("d-otter", Some(1))] {
        let mut file = file();
        file.overrides.limit = limit;
        let run = start_of(&lineage, name, &file).await;
        let part = Component { part: "with.name".into(), value: name.into() };
        note_key(&lineage, &run, &sft, name.as_bytes(), &[part]).await;
        tell(&lineage, &run, Some("sft"), What::Finished(gave("adapter", name.as_bytes()))).await;
        runs.push(run);
    }
    let before = async |run: &RunId| lineage.success_before(run, &sft).await.unwrap().map(|before| before.run);
    assert_eq!(before(&runs[2]).await, Some(runs[0].clone()));
    assert_eq!(before(&runs[3]).await, Some(runs[1].clone()));
    assert_eq!(before(&runs[1]).await, None);
    for (limit, name) in [(None, "c-otter"), (Some(1), "d-otter")] {
        let last = &lineage.last_successes("p", limit, &[&sft]).await.unwrap()[&sft];
        assert_eq!(last.components[0].value, name);
    }
    assert!(lineage.last_successes("p", Some(2), &[&sft]).await.unwrap().is_empty());
    let before = async |run: &RunId| lineage.run_before(run).await.unwrap();
    assert_eq!(before(&runs[2]).await, Some(runs[0].clone()));
    assert_eq!(before(&runs[3]).await, Some(runs[1].clone()));
    assert_eq!(before(&runs[1]).await, Some(runs[0].clone()), "for want of another rehearsal");
    assert_eq!(before(&runs[0]).await, None);
}
