//! What is asked of a long history goes by its indices.

use sqlx::{AssertSqlSafe, Row};

use super::super::*;
use super::home;

/// Queries that a reader waits for, with every `?`.
fn queries() -> Vec<String> {
    let stage = |sql: &str, and: &str| format!("{sql} AND {and} = ?2");
    vec![
        format!("{} WHERE run = ?1", runs::RUNS),
        format!("{} ORDER BY number DESC LIMIT 20", runs::RUNS),
        stage(stages::OUTPUTS, "stage"),
        stage(stages::INPUTS, "i.stage"),
        stage(stages::METRICS, "stage"),
        stages::OUTPUTS.to_owned(),
        stages::INPUTS.to_owned(),
        stages::METRICS.to_owned(),
        stages::FOLLOWING.to_owned(),
        stages::REASON.to_owned(),
        attempts::ATTEMPTS.to_owned(),
        recall::PUBLISHED.to_owned(),
        recall::FIGURES.to_owned(),
        curves::UNFINISHED.to_owned(),
        curves::POINTS.to_owned(),
        recall::LAST_SUCCESSES.to_owned(),
        recall::LAST_TRIES.to_owned(),
        recall::SUCCESS_BEFORE.to_owned(),
        artifacts::PRODUCERS.to_owned(),
        artifacts::CONSUMERS.to_owned(),
        artifacts::MADE_OF.to_owned(),
        artifacts::RUNS_OF_THE_SAME.to_owned(),
        artifacts::RUNS_WITH.to_owned(),
        artifacts::ABOVE.to_owned(),
        "SELECT * FROM stages WHERE run = ? AND stage = ?".to_owned(),
        "SELECT * FROM stages WHERE run = ? AND status IN ('failed', 'refused') ORDER BY position LIMIT ?".to_owned(),
    ]
}

/// Tables that a query reads from one end to the other.
async fn scanned(lineage: &Lineage, sql: &str) -> Vec<String> {
    let plan = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = sqlx::query(plan).fetch_all(&lineage.pool).await.unwrap();
    let steps = rows.iter().map(|row| row.get::<String, _>("detail"));
    // Going through the runs by number ends at the limit; what is asked for, and found so far, is short.
    let is_short = |step: &String| {
        ["r", "wanted VIRTUAL", "f", "following"].iter().any(|name| step.starts_with(&format!("SCAN {name}")))
    };
    steps.filter(|step| step.starts_with("SCAN") && !is_short(step)).collect()
}

#[tokio::test]
async fn no_query_reads_a_whole_table() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    for sql in queries() {
        let scanned = scanned(&lineage, &sql).await;
        assert!(scanned.is_empty(), "{sql}\n{scanned:?}");
    }
    let control = scanned(&lineage, "SELECT * FROM stages WHERE operator = ?").await;
    assert_eq!(control.len(), 1, "the negative control: no index answers this");
}
