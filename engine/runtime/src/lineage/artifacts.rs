//! Reading: who made and who read an artifact, in every run of this home.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
};

use llmflow_contract::{Digest, Kind, Port, StageId};
use serde::Serialize;
use sqlx::{Row, sqlite::SqliteRow};

use super::{
    columns::{count, digest, kind, port, stage_id, text},
    *,
};

pub(super) const PRODUCERS: &str = "SELECT o.run, o.stage, o.port FROM outputs o JOIN runs r ON r.run = o.run
    WHERE o.digest = ?1 ORDER BY r.number DESC, o.position";
pub(super) const CONSUMERS: &str = "SELECT i.run, i.stage, i.port FROM outputs o
    JOIN inputs i ON i.run = o.run AND i.from_stage = o.stage AND i.from_port = o.port
    JOIN runs r ON r.run = i.run WHERE o.digest = ?1 ORDER BY r.number DESC, i.position";
/// What the stages that read an artifact gave. `report` and `trace` stand beside results and are none.
pub(super) const MADE_OF: &str = "SELECT m.run, m.stage, m.port, m.kind, m.digest, s.operator, s.version, s.summary
    FROM outputs o JOIN inputs i ON i.run = o.run AND i.from_stage = o.stage AND i.from_port = o.port
    JOIN stages s ON s.run = i.run AND s.stage = i.stage
    JOIN outputs m ON m.run = i.run AND m.stage = i.stage
    JOIN runs r ON r.run = i.run
    WHERE o.digest = ?1 AND m.digest IS NOT NULL AND m.port NOT IN ('report', 'trace')
    ORDER BY r.number DESC, s.position, m.position";

/// Artifacts that a walk goes through before it stops.
const MOST: usize = 2_000;

/// An artifact that was made of another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Descendant {
    pub digest: Digest,
    pub stage: StageId,
    pub port: Port,
    pub kind: Kind,
    pub operator: String,
    pub version: u32,
    pub summary: String,
    /// Runs that gave it, newest first.
    pub runs: Vec<RunId>,
    /// Indices of what was made of it in turn.
    pub into: Vec<usize>,
}

/// Everything that was made of one artifact.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Descendants {
    /// Indices of what was made of it without a step between.
    pub first: Vec<usize>,
    pub all: Vec<Descendant>,
    /// There are more, which are left out.
    pub is_cut: bool,
}

impl Lineage {
    /// Which stages made an artifact, newest run first.
    pub async fn producers(&self, digest: &Digest) -> Result<Vec<Whereabouts>, Failure> {
        self.whereabouts(PRODUCERS, digest).await
    }

    /// Which stages read an artifact, newest run first.
    pub async fn consumers(&self, digest: &Digest) -> Result<Vec<Whereabouts>, Failure> {
        self.whereabouts(CONSUMERS, digest).await
    }

    async fn whereabouts(&self, sql: &'static str, digest: &Digest) -> Result<Vec<Whereabouts>, Failure> {
        let rows = sqlx::query(sql).bind(digest.to_string()).fetch_all(&self.pool).await.map_err(failed)?;
        rows.iter()
            .map(|row| {
                let run = RunId(text(row, "run")?);
                Ok(Whereabouts { run, stage: stage_id(row, "stage")?, port: port(row, "port")? })
            })
            .collect()
    }

    /// Everything that was made of an artifact, directly or not, in every run of this home.
    pub async fn descendants(&self, of: &Digest) -> Result<Descendants, Failure> {
        let mut found = Descendants::default();
        let mut known: HashMap<Digest, usize> = HashMap::new();
        let mut queue: VecDeque<(Digest, Option<usize>)> = VecDeque::from([(*of, None)]);
        while let Some((parent, at)) = queue.pop_front() {
            let rows = sqlx::query(MADE_OF).bind(parent.to_string()).fetch_all(&self.pool).await.map_err(failed)?;
            for row in &rows {
                let Some(digest) = digest(row, "digest")? else { continue };
                let index = match known.get(&digest) {
                    Some(index) if at == Some(*index) => continue, // a stage that changed nothing
                    Some(index) => *index,
                    None if found.all.len() == MOST => {
                        found.is_cut = true;
                        continue;
                    }
                    None => {
                        found.all.push(descendant(row, digest)?);
                        known.insert(digest, found.all.len() - 1);
                        if digest != *of {
                            queue.push_back((digest, Some(found.all.len() - 1)));
                        }
                        found.all.len() - 1
                    }
                };
                let run = RunId(text(row, "run")?);
                if !found.all[index].runs.contains(&run) {
                    found.all[index].runs.push(run);
                }
                let into = match at {
                    Some(at) => &mut found.all[at].into,
                    None => &mut found.first,
                };
                if !into.contains(&index) {
                    into.push(index);
                }
            }
        }
        Ok(found)
    }

    /// What was published at a path last: digest, bytes, modification time in ns, inode.
    pub async fn published(&self, path: &Path) -> Result<Option<(Digest, u64, i64, u64)>, Failure> {
        let row = sqlx::query("SELECT digest, size, mtime_ns, ino FROM published WHERE path = ?")
            .bind(path.to_string_lossy().into_owned())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let number = |name: &str| row.try_get::<i64, _>(name).map_err(failed);
        let (size, mtime_ns, inode) = (number("size")? as u64, number("mtime_ns")?, number("ino")? as u64);
        Ok(digest(&row, "digest")?.map(|digest| (digest, size, mtime_ns, inode)))
    }
}

fn descendant(row: &SqliteRow, digest: Digest) -> Result<Descendant, Failure> {
    Ok(Descendant {
        digest,
        stage: stage_id(row, "stage")?,
        port: port(row, "port")?,
        kind: kind(row)?,
        operator: text(row, "operator")?,
        version: count(row, "version")?,
        summary: text(row, "summary")?,
        runs: Vec::new(),
        into: Vec::new(),
    })
}
