//! `doctor --rebuild`: the history made anew from what the store remembers.
//!
//! The new database is written aside and takes the old one's place whole; the old one is kept beside it. Lost are the points
//! of curves, the moments within a run, and each attempt's time and failure; of runs that left no record in the store,
//! everything: those stay in the old file.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use llmflow_contract::StageId;
use serde::Serialize;
use sqlx::{Sqlite, Transaction};

use super::{
    opening::RunWords,
    record::{InputRecord, RunRecord, StageRecord},
    *,
};
use crate::{
    event::{Event, RunStatus, What},
    plan::{Component, PlanView},
    store::{KeyRecord, Store},
};

/// What a rebuild came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rebuilt {
    pub runs: usize,
    pub stages: usize,
    /// Records that could not be read, by name, and stores that do not answer, by URL.
    pub unreadable: Vec<String>,
    /// Where the old database is kept, if there was one.
    pub old: Option<PathBuf>,
}

/// Makes `lineage.db` anew from the run and key records of the home's own store and of every other that its runs used.
///
/// # Errors
/// `run/busy` while a run of this home is under way; of the environment if the disk or the store is unusable.
pub async fn rebuild(home: &Home, own: &Store) -> Result<Rebuilt, Failure> {
    refuse_live_runs(home)?;
    let database = home.database();
    let aside = beside(&database, "new");
    remove_database(&aside)?;
    let mut rebuilt = Rebuilt::default();
    {
        let lineage = Lineage::open_file(&aside, BUSY).await?;
        let mut found: HashMap<RunId, (RunRecord, Store, Option<String>)> = HashMap::new();
        for record in read_records(own, &mut rebuilt).await? {
            found.insert(record.run.clone(), (record, own.clone(), None));
        }
        for url in home.other_stores()? {
            // One that is gone or does not answer keeps no other's runs away.
            let Some((store, records)) = read_other(&url, home, &mut rebuilt).await else {
                rebuilt.unreadable.push(url);
                continue;
            };
            for record in records {
                let run = record.run.clone();
                found.entry(run).or_insert_with(|| (record, store.clone(), Some(url.clone())));
            }
        }
        let mut records: Vec<_> = found.into_values().collect();
        records.sort_by(|(a, ..), (b, ..)| (a.started_ms, &a.run).cmp(&(b.started_ms, &b.run)));
        for (record, store, url) in &records {
            lineage.restore_run(record, store, url.as_deref()).await?;
            rebuilt.stages += record.stages.len();
        }
        rebuilt.runs = records.len();
        lineage.remember_published(&database).await;
        lineage.pool.close().await;
    }
    leave_one_file(&aside).await?;
    let _alone = home.alone("history")?; // nobody finds none meanwhile, and makes one; no run begins
    refuse_live_runs(home)?;
    rebuilt.old = swap(&aside, &database)?;
    Ok(rebuilt)
}

fn refuse_live_runs(home: &Home) -> Result<(), Failure> {
    let Some(run) = home.live_run() else { return Ok(()) };
    let message = format!("run `{run}` is in progress in another process and writes to the history");
    Err(Failure::environment("run/busy", message).help("wait for it, or stop that process; then again"))
}

/// Puts away the journal beside a database that nobody has open, so that one rename moves it.
async fn leave_one_file(database: &Path) -> Result<(), Failure> {
    let options = SqliteConnectOptions::new().filename(database).journal_mode(SqliteJournalMode::Delete);
    let alone = connections(1).connect_with(options).await.map_err(failed)?;
    alone.close().await;
    Ok(())
}

/// What another store has of this home's runs; those of other homes are not its history.
async fn read_other(url: &str, home: &Home, rebuilt: &mut Rebuilt) -> Option<(Store, Vec<RunRecord>)> {
    let is_gone = url.strip_prefix("file://").is_some_and(|folder| !Path::new(folder).is_dir());
    if is_gone {
        return None; // opening it would make it
    }
    let store = Store::open(url).ok()?.in_home(&home.work());
    let mut records = read_records(&store, rebuilt).await.ok()?;
    let places = home.places().ok()?;
    records.retain(|record| places.contains(&record.home));
    Some((store, records))
}

async fn read_records(store: &Store, rebuilt: &mut Rebuilt) -> Result<Vec<RunRecord>, Failure> {
    let mut records = Vec::new();
    for name in store.run_names().await? {
        match store.run_record::<RunRecord>(&name).await {
            Ok(Some(record)) if record.run.0 == name => records.push(record),
            Ok(_) => rebuilt.unreadable.push(name), // damaged
            Err(failure) if failure.code == "store/newer" => rebuilt.unreadable.push(name),
            Err(failure) => return Err(failure),
        }
    }
    Ok(records)
}

impl Lineage {
    /// Writes a run down as its record in a store tells it; `url`: of one that is not the home's own. What was under way
    /// is over.
    async fn restore_run(&self, record: &RunRecord, store: &Store, url: Option<&str>) -> Result<(), Failure> {
        let mut change = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let was_running = record.status == RunStatus::Running;
        let status = if was_running { RunStatus::Interrupted } else { record.status };
        let row = PipelineRow {
            path: record.path.clone(),
            name: record.pipeline.clone(),
            text: record.text.clone(),
            params: record.params.clone(),
            overrides: record.overrides.clone(),
            resumes: record.resumes.clone(),
            locks: record.locks.clone(),
            selection: record.selection.clone(),
            store: url.map(str::to_owned),
        };
        let words = RunWords {
            run: &record.run,
            row: &row,
            status,
            started_ms: record.started_ms,
            seconds: record.seconds,
            changed: &record.changed,
            machine: &record.machine,
            version: &record.version,
        };
        words.insert(&mut change).await?;
        let started = What::RunStarted {
            pipeline: record.pipeline.clone(),
            plan: PlanView::default(),
            compute: record.compute.clone(),
            home: record.home.clone(),
            disk_free_bytes: None,
        };
        add_event(&mut change, record, None, started).await?;
        for (position, (stage, row)) in record.stages.iter().enumerate() {
            let known = match (&row.key, &row.components) {
                (Some(key), None) => store.find_record(key).await?,
                _ => None,
            };
            restore_stage(&mut change, record, position, (stage, row), known).await?;
        }
        for path in &record.published {
            let what = What::Published { path: path.clone(), bytes: 0, unchanged: true };
            add_event(&mut change, record, None, what).await?;
        }
        change.commit().await.map_err(failed)
    }

    /// Takes over what vouches for published files, where the old database can still say it. Without it they are
    /// written once more.
    async fn remember_published(&self, old: &Path) {
        if !old.is_file() {
            return;
        }
        let copied = async {
            let mut own = self.pool.acquire().await?;
            let attach = sqlx::query("ATTACH DATABASE ? AS old").bind(old.to_string_lossy().into_owned());
            attach.execute(&mut *own).await?;
            sqlx::query("INSERT OR IGNORE INTO published SELECT * FROM old.published").execute(&mut *own).await?;
            sqlx::query("DETACH DATABASE old").execute(&mut *own).await
        };
        let _: Result<_, sqlx::Error> = copied.await;
    }
}

async fn restore_stage(
    change: &mut Transaction<'_, Sqlite>,
    run: &RunRecord,
    position: usize,
    (stage, row): (&StageId, &StageRecord),
    known: Option<KeyRecord>,
) -> Result<(), Failure> {
    let effort = known.as_ref().and_then(|record| record.effort);
    let components: Option<Vec<Component>> = row.components.clone().or_else(|| known.map(|record| record.components));
    let is_open = matches!(row.status.as_str(), "running" | "waiting");
    let status = if run.status == RunStatus::Running && is_open { "interrupted" } else { row.status.as_str() };
    sqlx::query(
        "INSERT INTO stages (run, stage, position, operator, version, status, key, components, seconds, summary, failure,
             attempts, because, needs, effort, asked) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&run.run.0)
    .bind(stage.as_str())
    .bind(position as i64)
    .bind(&row.operator)
    .bind(i64::from(row.version))
    .bind(status)
    .bind(row.key.map(|key| key.to_string()))
    .bind(text_of(components.as_ref())?)
    .bind(row.seconds)
    .bind(&row.summary)
    .bind(text_of(row.failure.as_ref())?)
    .bind(i64::from(row.attempts))
    .bind(text_of(row.because.as_ref())?)
    .bind(text_of(Some(&row.needs))?)
    .bind(text_of(effort.as_ref())?)
    .bind(&row.asked)
    .execute(&mut **change)
    .await
    .map_err(failed)?;
    restore_ports(change, run, stage, row).await?;
    for (name, value) in &row.metrics {
        sqlx::query("INSERT INTO metrics (run, stage, name, value) VALUES (?, ?, ?, ?)")
            .bind(&run.run.0)
            .bind(stage.as_str())
            .bind(name)
            .bind(*value)
            .execute(&mut **change)
            .await
            .map_err(failed)?;
    }
    match &row.reason {
        Some(what) => add_event(change, run, Some(stage), what.clone()).await,
        None => Ok(()),
    }
}

async fn restore_ports(
    change: &mut Transaction<'_, Sqlite>,
    run: &RunRecord,
    stage: &StageId,
    row: &StageRecord,
) -> Result<(), Failure> {
    for (position, InputRecord(port, from_stage, from_port, aside)) in row.inputs.iter().enumerate() {
        sqlx::query(
            "INSERT INTO inputs (run, stage, port, position, from_stage, from_port, label, digest)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&run.run.0)
        .bind(stage.as_str())
        .bind(port.as_str())
        .bind(position as i64)
        .bind(from_stage.as_str())
        .bind(from_port.as_str())
        .bind(aside.label.as_deref())
        .bind(aside.digest.map(|digest| digest.to_string()))
        .execute(&mut **change)
        .await
        .map_err(failed)?;
    }
    for (position, (port, kind)) in row.kinds.iter().enumerate() {
        sqlx::query("INSERT INTO outputs (run, stage, port, position, kind, digest) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(&run.run.0)
            .bind(stage.as_str())
            .bind(port.as_str())
            .bind(position as i64)
            .bind(kind.as_str())
            .bind(row.outputs.get(port).map(ToString::to_string))
            .execute(&mut **change)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// At the moment the run began: no record knows a better one.
async fn add_event(
    change: &mut Transaction<'_, Sqlite>,
    run: &RunRecord,
    stage: Option<&StageId>,
    what: What,
) -> Result<(), Failure> {
    let event = Event { at_ms: run.started_ms, run: run.run.clone(), stage: stage.cloned(), what };
    sqlx::query("INSERT INTO events (run, at_ms, json) VALUES (?, ?, ?)")
        .bind(&run.run.0)
        .bind(event.at_ms as i64)
        .bind(serde_json::to_string(&event).map_err(unreadable)?)
        .execute(&mut **change)
        .await
        .map(drop)
        .map_err(failed)
}

fn text_of<T: Serialize>(value: Option<&T>) -> Result<Option<String>, Failure> {
    value.map(|value| serde_json::to_string(value).map_err(unreadable)).transpose()
}

/// `lineage.db` → `lineage.db.new`.
fn beside(database: &Path, end: &str) -> PathBuf {
    with_end(database, &format!(".{end}"))
}

/// `lineage.db` → `lineage.db-wal`.
pub(super) fn with_end(database: &Path, end: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// The files of a database: itself, and what SQLite keeps beside it while it is in use.
fn files_of(database: &Path) -> [PathBuf; 3] {
    [database.to_owned(), with_end(database, "-wal"), with_end(database, "-shm")]
}

fn remove_database(database: &Path) -> Result<(), Failure> {
    remove_all(&files_of(database))
}

/// Removes those that are there.
pub(super) fn remove_all(files: &[PathBuf]) -> Result<(), Failure> {
    for file in files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::io("removing", file, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Puts the new database in the old one's place, which is kept. The database goes first: SQLite ignores a journal
/// without one, so that whatever moment the power goes, no journal meets another's database.
fn swap(new: &Path, database: &Path) -> Result<Option<PathBuf>, Failure> {
    let was_there = database.exists();
    let kept = |number| beside(database, &if number > 1 { format!("old.{number}") } else { "old".to_owned() });
    // Of earlier ones each is kept: the second may have been the last that knew a run.
    let old = (1..).map(kept).find(|old| !old.exists()).unwrap_or_else(|| kept(1));
    for (from, to) in files_of(database).iter().zip(files_of(&old)) {
        match fs::rename(from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::io("moving", from, &error));
            }
            _ => {}
        }
    }
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    sync(new).and_then(|()| fs::rename(new, database)).map_err(|error| Failure::io("placing", database, &error))?;
    let folder = database.parent().unwrap_or(Path::new("."));
    sync(folder).map_err(|error| Failure::io("syncing", folder, &error))?;
    Ok(was_there.then_some(old))
}
