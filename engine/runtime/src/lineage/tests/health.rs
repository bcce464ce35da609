//! A database that is damaged, locked or of another time: a clear answer, and nothing lost.

use super::*;
use crate::store::Store;

/// A home with a history of some pages, all of them in `lineage.db` itself.
async fn filled() -> (tempfile::TempDir, Home) {
    let (folder, home) = home();
    let store = Store::open_local(&home.store()).unwrap();
    let lineage = Lineage::open(&home).await.unwrap();
    for number in 0..20 {
        let run = start(&lineage, &format!("run-{number:02}")).await;
        tell(&lineage, &run, Some("load"), What::Finished(gave("data", b"rows"))).await;
        tell(&lineage, &run, Some("sft"), What::Finished(gave("adapter", b"weights"))).await;
        tell(&lineage, &run, None, What::RunFinished { status: RunStatus::Done, seconds: 1.0 }).await;
        let record = serde_json::to_value(lineage.record_of(&run).await.unwrap()).unwrap();
        store.put_run(&run, &record).await.unwrap();
    }
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&lineage.pool).await.unwrap();
    lineage.pool.close().await;
    (folder, home)
}

/// Asks everything there is to ask; how many runs there are.
async fn ask_all(home: &Home) -> Result<usize, Failure> {
    let lineage = Lineage::open(home).await?;
    let runs = lineage.runs(&RunFilter::default()).await?;
    for row in &runs {
        lineage.stages_of_run(&row.run).await?;
        lineage.events(&row.run).await?;
        lineage.record_of(&row.run).await?;
        lineage.following(&row.run, &"load".into()).await?;
    }
    lineage.descendants(&Digest::of(b"rows"), &"load".into()).await?;
    lineage.pool.close().await;
    Ok(runs.len())
}

#[tokio::test]
async fn pages_that_were_overwritten_are_found_and_the_help_says_what_makes_them_again() {
    let (_folder, home) = filled().await;
    let whole = std::fs::read(home.database()).unwrap();
    assert_eq!(ask_all(&home).await.unwrap(), 20, "the negative control: nothing is wrong yet");
    const PAGE: usize = 4096;
    let mut found = 0;
    for seed in 0..40u8 {
        let mut bytes = whole.clone();
        for number in 0..3 {
            let noise = Digest::of(&[seed, number]);
            let page = usize::from(u16::from_le_bytes([noise.bytes()[0], noise.bytes()[1]])) % (bytes.len() / PAGE);
            bytes[page * PAGE..(page + 1) * PAGE].copy_from_slice(&noise.bytes().repeat(PAGE / 32));
        }
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", home.database().display()));
        }
        std::fs::write(home.database(), bytes).unwrap();
        match ask_all(&home).await {
            Ok(_) => {} // a page that is not in use
            Err(failure) => {
                let help = failure.help.clone().unwrap_or_default();
                assert!(help.contains("llmflow doctor --rebuild"), "seed {seed}: {failure} ({help})");
                found += 1;
            }
        }
    }
    assert!(found >= 25, "{found} of 40 were found");
    let store = Store::open_local(&home.store()).unwrap();
    assert_eq!(rebuild(&home, &store).await.unwrap().runs, 20);
    assert_eq!(ask_all(&home).await.unwrap(), 20);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_said_to_be_damaged() {
    let (_folder, home) = home();
    std::fs::write(home.database(), "this is text, and long enough to be no header of SQLite".repeat(40)).unwrap();
    let failure = Lineage::open(&home).await.unwrap_err();
    assert_eq!(failure.code, "lineage/damaged");
    assert!(failure.help.unwrap().contains("--rebuild"));
}

#[tokio::test]
async fn while_another_process_writes_readers_read_and_a_writer_that_waited_in_vain_says_so() {
    let (_folder, home) = filled().await;
    let other = Lineage::open(&home).await.unwrap();
    let held = other.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let lineage = Lineage::open_file(&home.database(), Duration::from_millis(10)).await.unwrap();
    assert_eq!(lineage.runs(&RunFilter::default()).await.unwrap().len(), 20);
    let end = What::RunFinished { status: RunStatus::Failed, seconds: 1.0 };
    let event = Event { at_ms: 1, run: RunId("run-00".into()), stage: None, what: end };
    let failure = lineage.write(&[Note::Event(event.clone())]).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.help.is_some()), ("lineage/locked", true), "{failure}");
    held.rollback().await.unwrap();
    lineage.write(&[Note::Event(event)]).await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_left_alone() {
    let (_folder, home) = filled().await;
    let lineage = Lineage::open(&home).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', true, x'00', 0)",
    )
    .execute(&lineage.pool)
    .await
    .unwrap();
    lineage.pool.close().await;
    let failure = Lineage::open(&home).await.unwrap_err();
    assert_eq!(failure.code, "lineage/newer", "{failure}");
    let store = Store::open_local(&home.store()).unwrap();
    assert_eq!(rebuild(&home, &store).await.unwrap().runs, 20, "nothing is lost to the older program either");
}
