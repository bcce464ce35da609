//! What an older LLMflow wrote is read.

use std::borrow::Cow;

use sqlx::{Executor, migrate::Migrator};

use super::*;

/// A run of `load` → `sft`, as the first version wrote it.
const FIRST: &str = "
    INSERT INTO runs (run, pipeline, path, text, set_json, params, status, started_ms, seconds)
    VALUES ('quiet-otter', 'p', '/tmp/p.yaml', 'name: p', '[]', '{}', 'done', 1, 2.5);
    INSERT INTO stages (run, stage, position, operator, version, status, attempts)
    VALUES ('quiet-otter', 'load', 0, 'data.load', 1, 'ran', 1), ('quiet-otter', 'sft', 1, 'train.sft', 3, 'ran', 1);
    INSERT INTO inputs (run, stage, port, position, from_stage, from_port)
    VALUES ('quiet-otter', 'sft', 'data', 0, 'load', 'data');
    INSERT INTO outputs (run, stage, port, position, kind) VALUES ('quiet-otter', 'load', 'data', 0, 'dataset/chat');";

fn up_to(versions: usize) -> Migrator {
    Migrator { migrations: Cow::Owned(MIGRATIONS.iter().take(versions).cloned().collect()), ..Migrator::DEFAULT }
}

#[tokio::test]
async fn a_history_of_every_past_version_is_brought_up_to_date() {
    for version in 1..=MIGRATIONS.iter().count() {
        let (_folder, home) = home();
        let pool = connections(1).connect_with(options(&home.database())).await.unwrap();
        up_to(1).run(&pool).await.unwrap();
        pool.execute(FIRST).await.unwrap();
        up_to(version).run(&pool).await.unwrap();
        pool.close().await;

        let lineage = Lineage::open(&home).await.unwrap();
        let run = lineage.find_run("@").await.unwrap();
        let row = lineage.run(&run).await.unwrap();
        assert_eq!((row.status, row.seconds), (RunStatus::Done, Some(2.5)), "version {version}");
        let stages = lineage.stages_of_run(&run).await.unwrap();
        assert_eq!(
            (&*stages[1].operator, stages[1].version, stages[1].inputs[0].slot()),
            ("train.sft", 3, "data".into())
        );
        assert!(lineage.record_of(&run).await.is_ok(), "version {version}");
        assert!(!start(&lineage, "bold-newt").await.0.is_empty(), "and goes on");
    }
}

/// Records of runs lie in stores that homes of other versions share.
#[test]
fn a_run_record_without_labels_is_read_and_written_as_it_was() {
    let text = r#"{"operator":"train.sft","version":3,"status":"ran","attempts":1,"inputs":[["data","load","rows"]]}"#;
    let record: StageRecord = serde_json::from_str(text).unwrap();
    assert_eq!(record.inputs, [InputRecord("data".into(), "load".into(), "rows".into(), InputAside::default())]);
    assert_eq!(serde_json::to_string(&record).unwrap(), text);
    let aside = InputAside { label: Some("talk".into()), digest: None };
    let labelled = InputRecord("data".into(), "load".into(), "rows".into(), aside);
    let text = serde_json::to_string(&labelled).unwrap();
    assert_eq!(text, r#"["data","load","rows",{"label":"talk"}]"#);
    assert_eq!(serde_json::from_str::<InputRecord>(&text).unwrap(), labelled);
}
