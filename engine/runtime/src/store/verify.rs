//! Verifying: reads everything again and says what is wrong, and whose it is. It goes on after errors.

use std::collections::{BTreeMap, BTreeSet};

use llmflow_contract::{Digest, Failure};
use serde::Serialize;
use serde_json::Value;

use super::{
    KeyRecord, Store,
    backend::Backend,
    blob_path,
    history::{RunRecord, digest_in},
    key_path, manifest_path, memo,
    read::manifest_of,
    seal,
};

/// Names of who is concerned that a damage lists at most.
const MOST_NAMES: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    Record,
    Artifact,
    Blob,
    /// What `runs/` says of a run: a root of gc.
    Run,
    /// A name for a run: a root of gc.
    Tag,
    /// Which result a frozen stage keeps.
    Frozen,
    /// What a program or a judge of rows answered.
    Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    Missing,
    /// Other bytes than its name says.
    Damaged,
    /// It is there, and the machine does not give it. Nothing is done to it.
    Unreadable,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Damage {
    pub object: Object,
    /// Its digest; of a run or tag its name.
    pub name: String,
    pub wrong: Wrong,
    /// Why it cannot be read.
    pub because: Option<String>,
    /// `RUN/STAGE` of some that made it or use it; `key …` where no run is recorded.
    pub of: Vec<String>,
    /// Where it lies in the store.
    pub path: String,
}

/// What was read, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verified {
    pub records: u64,
    pub artifacts: u64,
    /// Those whose bytes were read.
    pub blobs: u64,
    pub bytes: u64,
    /// Records of runs.
    pub runs: u64,
    /// Remembered answers.
    pub answers: u64,
    pub damage: Vec<Damage>,
    /// Damaged objects that were set aside, so that the next run makes them anew.
    pub repaired: u64,
}

/// Who needs what: from a blob to its artifacts, from these to records, from these to stages.
#[derive(Default)]
struct Owners {
    stages: BTreeMap<Digest, BTreeSet<String>>,
    records: BTreeMap<Digest, BTreeSet<Digest>>,
    artifacts: BTreeMap<Digest, BTreeSet<Digest>>,
    /// Artifacts that refer to an artifact.
    users: BTreeMap<Digest, BTreeSet<Digest>>,
}

impl Store {
    /// Reads every record and manifest, and of the blobs and remembered answers a share from 0 to 1, drawn by chance. With
    /// `repair`, what is damaged is set aside.
    ///
    /// # Errors
    /// Of the environment if the store cannot be listed; what cannot be read is in the report.
    pub async fn verify(&self, share: f64, repair: bool) -> Result<Verified, Failure> {
        let mut report = Verified::default();
        let mut owners = Owners::default();
        self.verify_runs(&mut owners, &mut report).await?;
        self.verify_answers(share, &mut report).await?;
        self.verify_records(&mut owners, &mut report).await?;
        let blobs = self.verify_manifests(&mut owners, &mut report).await?;
        self.verify_blobs(&blobs, share, &mut report).await?;
        for damage in &mut report.damage {
            let concerned = damage.name.parse().map(|digest| owners.of(damage.object, &digest)).unwrap_or_default();
            damage.of = concerned.into_iter().take(MOST_NAMES).collect();
        }
        if repair {
            for damage in report.damage.iter().filter(|damage| damage.wrong == Wrong::Damaged) {
                self.backend.quarantine(&damage.path).await?;
                report.repaired += 1;
            }
        }
        Ok(report)
    }

    /// Records of runs, names and what is frozen: each says in its seal whether it is whole.
    async fn verify_runs(&self, owners: &mut Owners, report: &mut Verified) -> Result<(), Failure> {
        for (object, prefix) in [(Object::Run, "runs"), (Object::Tag, "tags"), (Object::Frozen, "frozen")] {
            for listed in self.backend.list(prefix).await? {
                report.runs += u64::from(object == Object::Run);
                let wrong = match self.backend.get(&listed.key).await {
                    Ok(Some(bytes)) => match seal::unseal::<Value>(&bytes) {
                        Some(whole) => {
                            if let (Object::Run, Ok(run)) = (object, serde_json::from_value::<RunRecord>(whole)) {
                                owners.add(run);
                            }
                            continue;
                        }
                        None => (Wrong::Damaged, None),
                    },
                    Ok(None) => continue, // gc was faster
                    Err(failure) => (Wrong::Unreadable, Some(failure)),
                };
                let name = listed.key.rsplit('/').next().unwrap_or_default().trim_end_matches(".json").to_owned();
                report.damage.push(damaged(object, name, listed.key, wrong));
            }
        }
        Ok(())
    }

    async fn verify_answers(&self, share: f64, report: &mut Verified) -> Result<(), Failure> {
        for listed in self.backend.list("memo").await? {
            let Some(question) = digest_in(&listed.key) else { continue };
            if share < 1.0 && rand::random::<f64>() >= share {
                continue;
            }
            report.answers += 1;
            let wrong = match self.backend.get(&listed.key).await {
                Ok(Some(bytes)) if memo::answer(&question, &bytes).is_none() => (Wrong::Damaged, None),
                Ok(_) => continue,
                Err(failure) => (Wrong::Unreadable, Some(failure)),
            };
            report.damage.push(damaged(Object::Answer, question.hex(), listed.key, wrong));
        }
        Ok(())
    }

    async fn verify_records(&self, owners: &mut Owners, report: &mut Verified) -> Result<(), Failure> {
        for key in self.keys().await? {
            report.records += 1;
            let wrong = match self.backend.get(&key_path(&key)).await {
                Ok(Some(bytes)) => match seal::unseal::<KeyRecord>(&bytes) {
                    Some(record) if record.key == key => {
                        for manifest in record.outputs.values().chain(record.side.values()) {
                            owners.records.entry(*manifest).or_default().insert(key);
                        }
                        continue;
                    }
                    _ => (Wrong::Damaged, None),
                },
                Ok(None) => continue, // gc was faster
                Err(failure) => (Wrong::Unreadable, Some(failure)),
            };
            report.damage.push(damage(Object::Record, key, wrong));
        }
        Ok(())
    }

    /// Manifests that are there or that a record names; gives the blobs they name, with their sizes.
    async fn verify_manifests(
        &self,
        owners: &mut Owners,
        report: &mut Verified,
    ) -> Result<BTreeMap<Digest, u64>, Failure> {
        let listed = self.backend.list("artifacts").await?;
        let mut wanted: Vec<Digest> = listed.iter().filter_map(|object| digest_in(&object.key)).collect();
        wanted.extend(owners.records.keys());
        let (mut seen, mut blobs) = (BTreeSet::new(), BTreeMap::new());
        while let Some(digest) = wanted.pop() {
            if !seen.insert(digest) {
                continue;
            }
            report.artifacts += 1;
            let wrong = match self.backend.get(&manifest_path(&digest)).await {
                Ok(Some(bytes)) => match manifest_of(&bytes, &digest) {
                    Some(manifest) => {
                        for file in &manifest.files {
                            blobs.insert(file.digest, file.size_bytes);
                            owners.artifacts.entry(file.digest).or_default().insert(digest);
                        }
                        for referred in manifest.references.values() {
                            owners.users.entry(*referred).or_default().insert(digest);
                            wanted.push(*referred);
                        }
                        continue;
                    }
                    None => (Wrong::Damaged, None),
                },
                Ok(None) => (Wrong::Missing, None),
                Err(failure) => (Wrong::Unreadable, Some(failure)),
            };
            report.damage.push(damage(Object::Artifact, digest, wrong));
        }
        Ok(blobs)
    }

    /// All blobs must be there in full size; of a share of them every byte is read.
    async fn verify_blobs(
        &self,
        blobs: &BTreeMap<Digest, u64>,
        share: f64,
        report: &mut Verified,
    ) -> Result<(), Failure> {
        let listed = self.backend.list("blobs").await?;
        let there: BTreeMap<Digest, u64> =
            listed.iter().filter_map(|object| Some((digest_in(&object.key)?, object.size_bytes))).collect();
        let all: BTreeSet<&Digest> = blobs.keys().chain(there.keys()).collect();
        for digest in all {
            let (wanted, found) = (blobs.get(digest), there.get(digest));
            let wrong = match (wanted, found) {
                (_, None) => (Wrong::Missing, None),
                (Some(wanted), Some(found)) if wanted != found => (Wrong::Damaged, None),
                (_, Some(size_bytes)) => {
                    if share < 1.0 && rand::random::<f64>() >= share {
                        continue;
                    }
                    report.blobs += 1;
                    report.bytes += size_bytes;
                    match self.reread(digest).await {
                        Ok(Some(found)) if found == *digest => continue,
                        Ok(None) => continue, // gc was faster
                        Ok(Some(_)) => (Wrong::Damaged, None),
                        Err(failure) => (Wrong::Unreadable, Some(failure)),
                    }
                }
            };
            report.damage.push(damage(Object::Blob, *digest, wrong));
        }
        Ok(())
    }

    /// The digest of a blob's bytes as they are now, whatever vouches for them.
    async fn reread(&self, digest: &Digest) -> Result<Option<Digest>, Failure> {
        let key = blob_path(digest);
        let disk = match &*self.backend {
            Backend::Disk(disk) => disk,
            Backend::Objects(objects) => return objects.read_through(&key, None).await,
        };
        let path = disk.path(&key);
        match Digest::of_file(&path) {
            Ok((found, _)) => Ok(Some(found)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::io("reading", path, &error)),
        }
    }
}

impl Owners {
    fn add(&mut self, run: RunRecord) {
        for (stage, made) in run.stages {
            if let Some(key) = made.key {
                self.stages.entry(key).or_default().insert(format!("{}/{stage}", run.run));
            }
        }
    }

    fn of(&self, object: Object, digest: &Digest) -> BTreeSet<String> {
        match object {
            Object::Record => self.of_record(digest),
            Object::Artifact => self.of_artifact(digest),
            Object::Blob => {
                self.artifacts.get(digest).into_iter().flatten().flat_map(|of| self.of_artifact(of)).collect()
            }
            Object::Run | Object::Tag | Object::Frozen | Object::Answer => BTreeSet::new(),
        }
    }
    fn of_record(&self, key: &Digest) -> BTreeSet<String> {
        let unknown = || BTreeSet::from([format!("key {}", key.short())]);
        self.stages.get(key).cloned().unwrap_or_else(unknown)
    }
    fn of_artifact(&self, digest: &Digest) -> BTreeSet<String> {
        let own = self.records.get(digest).into_iter().flatten().flat_map(|key| self.of_record(key));
        let users = self.users.get(digest).into_iter().flatten().flat_map(|user| self.of_artifact(user));
        own.chain(users).collect()
    }
}

fn damage(object: Object, digest: Digest, wrong: (Wrong, Option<Failure>)) -> Damage {
    let path = match object {
        Object::Record => key_path(&digest),
        Object::Artifact => manifest_path(&digest),
        _ => blob_path(&digest),
    };
    damaged(object, digest.hex(), path, wrong)
}

fn damaged(object: Object, name: String, path: String, (wrong, failure): (Wrong, Option<Failure>)) -> Damage {
    Damage { object, name, path, wrong, because: failure.map(|failure| failure.message), of: Vec::new() }
}
