//! Files of a dataset's repository.

use std::collections::BTreeMap;

use llmflow_contract::{Context, Failure, Locked, LockedFile, Remote};

use super::{files::Found, records, spec::Params};
use crate::remote::{Hub, Repository, RepositoryKind, Select, refuse_pickle};

/// The repository, and which of its files are read.
pub(super) struct RemoteFiles {
    pub repository: Repository,
    pub select: Select,
}

impl RemoteFiles {
    /// None without `source`.
    ///
    /// # Errors
    /// Class `input`, with the param at fault.
    pub fn of(params: &Params) -> Result<Option<Self>, Failure> {
        let Some(source) = &params.source else { return Ok(None) };
        let repository = Repository::parse(source, RepositoryKind::Dataset)?;
        if params.path.trim().is_empty() {
            return Err(Failure::input("param/invalid", "`path` is empty")
                .param("path")
                .help("name a file of the repository, or a pattern such as `data/train-*.parquet`"));
        }
        refuse_pickle(&params.path, "path")?;
        let select = Select::new(&params.path).map_err(|failure| failure.param("path"))?;
        Ok(Some(Self { repository, select }))
    }

    /// Its name in the lock.
    pub fn remote(&self) -> Remote {
        Remote { source: self.repository.source(), select: self.select.pattern.clone() }
    }

    /// The files among those of the source.
    ///
    /// # Errors
    /// `data/file-type`, before anything of it is fetched.
    pub fn files(&self, locked: &Locked) -> Result<BTreeMap<String, LockedFile>, Failure> {
        let chosen = locked.files.iter().filter(|(path, _)| self.select.matches(path));
        let files: BTreeMap<String, LockedFile> = chosen.map(|(path, file)| (path.clone(), file.clone())).collect();
        files.keys().try_for_each(|path| records::check_type(path))?;
        Ok(files)
    }

    /// Brings the files here, in order of their path.
    ///
    /// # Errors
    /// Those of [`Hub::fetch`].
    pub fn fetch(&self, params: &Params, ctx: &Context, hub: &Hub) -> Result<Vec<Found>, Failure> {
        let locked = params.locked.as_ref().ok_or_else(|| Failure::bug("a repository that was never resolved"))?;
        let files = self.files(locked)?;
        let fetched = hub.fetch(&self.repository, &locked.revision, &files, ctx)?;
        let found = fetched.into_iter().map(|(name, path)| Found { size_bytes: files[&name].size_bytes, name, path });
        Ok(found.collect())
    }
}
