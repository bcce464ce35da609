//! Reading: who made and who read an artifact, in every run of this home.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque, hash_map::Entry},
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
    JOIN inputs i ON i.run = o.run AND i.from_stage = o.stage AND i.from_port = o.port AND coalesce(i.digest, o.digest) = o.digest
    JOIN runs r ON r.run = i.run WHERE o.digest = ?1 ORDER BY r.number DESC, i.position";
/// What the stages that read an artifact gave, by who gave them that. `report` and `trace` stand beside results and are none.
pub(super) const MADE_OF: &str =
    "SELECT o.stage AS giver, m.run, m.stage, m.port, m.kind, m.digest, s.operator, s.version, s.summary
    FROM outputs o JOIN inputs i ON i.run = o.run AND i.from_stage = o.stage AND i.from_port = o.port
        AND coalesce(i.digest, o.digest) = o.digest
    JOIN stages s ON s.run = i.run AND s.stage = i.stage
    JOIN outputs m ON m.run = i.run AND m.stage = i.stage
    JOIN runs r ON r.run = i.run
    WHERE o.digest = ?1 AND m.digest IS NOT NULL AND m.port NOT IN ('report', 'trace')
    ORDER BY r.number DESC, s.position, m.position";

/// Which of these runs are of the same pipelines as any of those.
pub(super) const RUNS_OF_THE_SAME: &str =
    "SELECT r.run FROM json_each(?1) wanted CROSS JOIN runs r ON r.run = wanted.value WHERE r.pipeline IN (
        SELECT o.pipeline FROM json_each(?2) wanted CROSS JOIN runs o ON o.run = wanted.value)";
/// Which of these runs have a stage, whatever it gave there.
pub(super) const RUNS_WITH: &str =
    "SELECT s.run FROM json_each(?1) wanted CROSS JOIN stages s ON s.run = wanted.value AND s.stage = ?2";
/// Every stage that a stage reads, directly or not, in any of these runs.
pub(super) const ABOVE: &str = "WITH RECURSIVE above (run, stage) AS (
        SELECT i.run, i.from_stage FROM json_each(?1) wanted CROSS JOIN inputs i ON i.run = wanted.value AND i.stage = ?2
        UNION SELECT i.run, i.from_stage FROM above f CROSS JOIN inputs i ON i.run = f.run AND i.stage = f.stage)
    SELECT DISTINCT f.stage FROM above f";

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

    /// Everything that was made of what a stage gave, directly or not, in every run of this home. Others that gave the same
    /// count in other pipelines, and in runs of the same from when the stage had another name.
    pub async fn descendants(&self, of: &Digest, stage: &StageId) -> Result<Descendants, Failure> {
        let mut found = Descendants::default();
        let mut uses: HashMap<Digest, Uses> = HashMap::new();
        let mut known: HashMap<(Digest, StageId), usize> = HashMap::new();
        let mut queue = VecDeque::from([(*of, stage.clone(), None)]);
        while let Some((parent, stage, at)) = queue.pop_front() {
            let uses = match uses.entry(parent) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.uses_of(&parent).await?),
            };
            for made in self.made_of(uses, &stage).await? {
                let name = (made.digest, made.stage.clone());
                let index = match known.get(&name) {
                    Some(index) => *index,
                    None if found.all.len() == MOST => {
                        found.is_cut = true;
                        continue;
                    }
                    None => {
                        let index = found.all.len();
                        found.all.push(Descendant { runs: Vec::new(), ..made.clone() });
                        queue.push_back((made.digest, made.stage.clone(), Some(index)));
                        known.insert(name, index);
                        index
                    }
                };
                let new =
                    made.runs.iter().filter(|run| !found.all[index].runs.contains(run)).cloned().collect::<Vec<_>>();
                found.all[index].runs.extend(new);
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

    /// What was made of it as `stage` gave it; in other pipelines as anybody gave it, and in runs of the same that do not have
    /// the stage as anybody whom the stage did not read, directly or not, where it gave it.
    async fn made_of<'a>(&self, uses: &'a Uses, stage: &StageId) -> Result<Vec<&'a Descendant>, Failure> {
        let mut made: Vec<&Descendant> = uses.made.get(stage).into_iter().flatten().collect();
        let others = uses.made.iter().filter(|(giver, _)| *giver != stage);
        let mut others: Vec<(&StageId, &Descendant)> =
            others.flat_map(|(giver, made)| made.iter().map(move |made| (giver, made))).collect();
        if !others.is_empty() {
            let runs: BTreeSet<&RunId> = others.iter().flat_map(|(_, made)| &made.runs).collect();
            let (runs, own) = (list(runs)?, list(uses.givers.get(stage).into_iter().flatten())?);
            let same = self.names(RUNS_OF_THE_SAME, &runs, &own).await?;
            let with = self.names(RUNS_WITH, &runs, stage.as_str()).await?;
            let above = self.names(ABOVE, &own, stage.as_str()).await?;
            let counts = |run: &RunId, giver: &StageId| {
                !same.contains(&run.0) || !with.contains(&run.0) && !above.contains(giver.as_str())
            };
            others.retain(|(giver, made)| made.runs.iter().all(|run| counts(run, giver)));
        }
        made.extend(others.into_iter().map(|(_, made)| made));
        Ok(made)
    }

    /// The names that a query gives.
    async fn names(&self, sql: &'static str, first: &str, second: &str) -> Result<HashSet<String>, Failure> {
        let rows = sqlx::query_as(sql).bind(first).bind(second).fetch_all(&self.pool).await;
        let rows: Vec<(String,)> = rows.map_err(failed)?;
        Ok(rows.into_iter().map(|(name,)| name).collect())
    }

    async fn uses_of(&self, digest_of: &Digest) -> Result<Uses, Failure> {
        let mut uses = Uses::default();
        for place in self.producers(digest_of).await? {
            uses.givers.entry(place.stage).or_default().insert(place.run);
        }
        let rows = sqlx::query(MADE_OF).bind(digest_of.to_string()).fetch_all(&self.pool).await.map_err(failed)?;
        for row in &rows {
            let Some(digest) = digest(row, "digest")? else { continue };
            let mut made = descendant(row, digest)?;
            made.runs.push(RunId(text(row, "run")?));
            uses.made.entry(stage_id(row, "giver")?).or_default().push(made);
        }
        Ok(uses)
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

/// Runs as a query takes them.
fn list<'r>(runs: impl IntoIterator<Item = &'r RunId>) -> Result<String, Failure> {
    let runs: Vec<&str> = runs.into_iter().map(|run| run.0.as_str()).collect();
    serde_json::to_string(&runs).map_err(unreadable)
}

/// What became of one artifact, by who gave it.
#[derive(Default)]
struct Uses {
    givers: HashMap<StageId, HashSet<RunId>>,
    /// Each of one run.
    made: HashMap<StageId, Vec<Descendant>>,
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
