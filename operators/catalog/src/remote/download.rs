//! Downloads that go on where they were cut, by whichever process comes next.
//!
//! A file grows as `DIGEST.incomplete` under a kernel lock and becomes `DIGEST` when its digest is right. Nothing is
//! synced: every file is checked again before its use, so the worst that a crash costs is the download.

use std::{
    cell::Cell,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use futures::{StreamExt, TryStreamExt, stream};
use llmflow_contract::{Class, Context, Failure, LockedFile};
use reqwest::{Method, StatusCode, Url};

use super::{
    Fetched, Hub, Repository, TICK,
    client::{Answer, Requests, broken, host},
    digest::{Hashing, read_into},
    listing::file_parts,
    refusal,
};

/// Files that are fetched at once.
const AT_ONCE: usize = 4;

/// What is fetched, and how far it has come.
pub(super) struct Work<'a> {
    pub hub: &'a Hub,
    pub repository: &'a Repository,
    /// A commit.
    pub revision: &'a str,
    pub ctx: &'a Context<'a>,
    /// Bytes of all files together, those that were here included.
    pub total: u64,
    pub done: Cell<u64>,
}

impl Work<'_> {
    /// Fetches every file.
    ///
    /// # Errors
    /// The first failure; what the others have so far is kept.
    pub async fn all(&self, files: Vec<(&str, &LockedFile)>) -> Result<Fetched, Failure> {
        let requests = Requests::new(self.hub)?;
        let folder = self.ctx.downloads();
        fs::create_dir_all(folder).map_err(|error| Failure::io("making", folder, &error))?;
        let fetched = stream::iter(files).map(|(path, file)| self.file(path, file, &requests));
        fetched.buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn file(&self, path: &str, file: &LockedFile, requests: &Requests<'_>) -> Result<(String, PathBuf), Failure> {
        let target = self.ctx.downloads().join(file.digest.hex());
        let url = requests.url(file_parts(self.repository, self.revision, path))?;
        match Part::open(&target, path, file, self.ctx).await? {
            Some(part) => self.complete(part, &url, requests).await?,
            None => self.advance(file.size_bytes as i64), // another process has just fetched it
        }
        Ok((path.to_owned(), target))
    }

    /// Fetches until the digest is right.
    async fn complete(&self, mut part: Part<'_>, url: &Url, requests: &Requests<'_>) -> Result<(), Failure> {
        let mut is_old = part.size > 0;
        self.advance(part.size as i64);
        loop {
            let progress = Cell::new(part.size);
            let grow = async || {
                let result = self.grow(&mut part, url, requests).await;
                progress.set(part.size);
                result
            };
            requests.retrying(|| progress.get(), grow).await?;
            let found = part.hashing.clone().finish();
            if found == part.file.digest.hex() {
                return part.finish();
            }
            self.advance(-(part.size as i64));
            part.restart()?;
            // Bytes from an earlier time may have been damaged since: they get a second chance, fresh ones do not.
            if !std::mem::take(&mut is_old) {
                return Err(self.wrong_digest(&part, &found, url));
            }
        }
    }

    /// Fetches what a file lacks.
    async fn grow(&self, part: &mut Part<'_>, url: &Url, requests: &Requests<'_>) -> Result<(), Failure> {
        if part.size == part.file.size_bytes {
            return Ok(());
        }
        let mut answer = requests.send(Method::GET, url, part.size).await?;
        match answer.response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&answer) == Some(part.size) => {}
            // No range, or another one than was asked for: from the start.
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if part.size > 0 => {
                self.advance(-(part.size as i64));
                part.restart()?;
                if answer.response.status() != StatusCode::OK {
                    return Err(Failure::new(
                        Class::Transient { after: None },
                        "remote/range",
                        format!("`{}` gives another part of `{}` than was asked for", host(url), part.path),
                    ));
                }
            }
            StatusCode::OK => {}
            _ => return Err(refusal::refused(requests, self.repository, self.revision, Some(part.path), &answer).await),
        }
        let from = answer.response.url().clone();
        while let Some(chunk) = answer.response.chunk().await.map_err(|error| broken(&from, &error))? {
            if part.size + chunk.len() as u64 > part.file.size_bytes {
                let message =
                    format!("`{}` is longer than the {} bytes it should have", part.path, part.file.size_bytes);
                self.advance(-(part.size as i64));
                part.restart()?;
                return Err(Failure::environment("remote/size", message).help(MEDDLED));
            }
            part.write(&chunk)?;
            self.advance(chunk.len() as i64);
        }
        if part.size < part.file.size_bytes {
            let message = format!("`{}` broke off", host(&from));
            return Err(Failure::new(Class::Transient { after: None }, "remote/network", message));
        }
        Ok(())
    }

    fn advance(&self, bytes: i64) {
        self.done.set(self.done.get().saturating_add_signed(bytes));
        self.ctx.progress(self.done.get(), Some(self.total), "bytes");
    }

    fn wrong_digest(&self, part: &Part, found: &str, url: &Url) -> Failure {
        let digest = &part.file.digest;
        let message =
            format!("`{}` from `{}` has {} {found}, not {}", part.path, host(url), digest.name(), digest.hex());
        Failure::environment("remote/digest", message).param("source").help(MEDDLED)
    }
}

const MEDDLED: &str =
    "something between here and the hub changes files: see HF_ENDPOINT and the proxy; nothing of it was kept";

/// Where the bytes of a partial answer begin: `Content-Range: bytes 5-9/10`.
fn starts_at(answer: &Answer) -> Option<u64> {
    answer.header("content-range")?.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// A file that is not whole yet.
struct Part<'a> {
    /// In the repository.
    path: &'a str,
    file: &'a LockedFile,
    /// Locked: the kernel lets go of it when this process dies.
    handle: File,
    part: PathBuf,
    target: &'a Path,
    hashing: Hashing,
    size: u64,
}

impl<'a> Part<'a> {
    /// What there is of a file, locked; None if another process has finished it meanwhile.
    async fn open(
        target: &'a Path,
        path: &'a str,
        file: &'a LockedFile,
        ctx: &Context<'_>,
    ) -> Result<Option<Self>, Failure> {
        let mut part = target.as_os_str().to_owned();
        part.push(".incomplete");
        let part = PathBuf::from(part);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part);
        let mut handle = open.map_err(|error| Failure::io("opening", &part, &error))?;
        loop {
            match handle.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => tokio::time::sleep(TICK).await,
                Err(TryLockError::Error(error)) => return Err(Failure::io("locking", &part, &error)),
            }
        }
        let mut hashing = Hashing::start(file);
        // Who held the lock may have renamed the file that we waited for.
        if super::is_intact(target, file, ctx)? {
            let _ = fs::remove_file(&part);
            return Ok(None);
        }
        let size = read_into(&mut handle, &mut hashing, file.size_bytes, ctx)?;
        let size = size.map_err(|error| Failure::io("reading", &part, &error))?;
        Ok(Some(Self { path, file, handle, part, target, hashing, size }))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.handle.write_all(bytes).map_err(|error| Failure::io("writing", &self.part, &error))?;
        self.hashing.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// From the first byte again.
    fn restart(&mut self) -> Result<(), Failure> {
        let empty = self.handle.set_len(0).and_then(|()| self.handle.seek(SeekFrom::Start(0)));
        empty.map_err(|error| Failure::io("writing", &self.part, &error))?;
        (self.hashing, self.size) = (Hashing::start(self.file), 0);
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        fs::rename(&self.part, self.target).map_err(|error| Failure::io("finishing", self.target, &error))
    }
}
