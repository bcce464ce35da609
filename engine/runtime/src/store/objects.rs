//! A store elsewhere, or in memory: objects of object_store under a prefix.

use std::{
    fmt,
    fs::File,
    io::{Read, Write},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::FuturesUnordered};
use llmflow_contract::{Digest, Failure};
use object_store::{
    Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path as Key,
};

use super::Listed;

/// Larger files go up in parts of this size: object stores take none below 5 MiB, and a part must fit in memory.
const PART_BYTES: u64 = 8 << 20;
/// Parts of one file that are on their way at once.
const PARTS_AT_ONCE: usize = 4;

/// Objects below a prefix of a bucket.
pub(super) struct Objects {
    pub(super) store: Arc<dyn ObjectStore>,
    /// As object_store writes it: what of a URL cannot be in a key is escaped, and empty parts are none.
    pub(super) prefix: Key,
    /// As people know it, without credentials.
    pub(super) url: String,
    /// Off only where a test shows that the check is what finds damage.
    #[cfg(test)]
    pub(super) is_checked: bool,
}

/// What came of fetching a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    Whole,
    Missing,
    /// Twice other bytes than its digest says: not the network's fault.
    Damaged,
}

impl Objects {
    pub(super) fn new(store: Arc<dyn ObjectStore>, prefix: &str, url: String) -> Self {
        Self {
            store,
            prefix: Key::from(prefix),
            url,
            #[cfg(test)]
            is_checked: true,
        }
    }

    fn key(&self, key: &str) -> Key {
        self.prefix.parts().chain(Key::from(key).parts()).collect()
    }

    /// `None` if there is none such.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        let found = match self.store.get(&self.key(key)).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match found {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failure("reading", key, error)),
        }
    }

    /// Size in bytes, if it is there.
    pub(super) async fn size(&self, key: &str) -> Result<Option<u64>, Failure> {
        match self.store.head(&self.key(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failure("reading", key, error)),
        }
    }

    pub(super) async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        let put = self.store.put(&self.key(key), bytes.into()).await;
        put.map(drop).map_err(|error| self.failure("writing", key, error))
    }

    /// Writes where nothing is; says whether what is there now is ours.
    ///
    /// A put that was repeated after an error, or whose answer was lost, may have found our own bytes: whoever reads them
    /// back knows.
    pub(super) async fn create(&self, key: &str, bytes: Vec<u8>) -> Result<bool, Failure> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = PutPayload::from(Bytes::from(bytes.clone()));
        let error = match self.store.put_opts(&self.key(key), payload, options).await {
            Ok(_) => return Ok(true),
            Err(error) => error,
        };
        let is_taken = matches!(error, Error::AlreadyExists { .. });
        match self.get(key).await {
            Ok(Some(found)) if found == bytes => Ok(true),
            Ok(Some(_)) if is_taken => Ok(false),
            Ok(None) if is_taken => Ok(false), // removed meanwhile: whoever asked tries again
            Err(failure) if is_taken => Err(failure),
            _ => Err(self.failure("writing", key, error)),
        }
    }

    /// Uploads a file, in parts if it is large; never all of it in memory.
    pub(super) async fn upload(&self, key: &str, file: &Path, size_bytes: u64) -> Result<(), Failure> {
        let unreadable = |error: std::io::Error| Failure::io("reading", file, &error);
        if size_bytes <= PART_BYTES {
            let bytes = std::fs::read(file).map_err(unreadable)?;
            return self.put(key, bytes).await;
        }
        let mut source = File::open(file).map_err(unreadable)?;
        let failed = |error: Error| self.failure("writing", key, error);
        let mut upload = self.store.put_multipart(&self.key(key)).await.map_err(failed)?;
        let sent = async {
            let mut on_their_way = FuturesUnordered::new();
            loop {
                let mut part = Vec::new();
                (&mut source).take(PART_BYTES).read_to_end(&mut part).map_err(unreadable)?;
                if part.is_empty() {
                    break;
                }
                on_their_way.push(upload.put_part(part.into()));
                if on_their_way.len() >= PARTS_AT_ONCE {
                    on_their_way.try_next().await.map_err(failed)?;
                }
            }
            on_their_way.try_collect::<Vec<()>>().await.map_err(failed)?;
            Ok(())
        }
        .await;
        let ended = match sent {
            Ok(()) => upload.complete().await.map(drop).map_err(failed),
            Err(failure) => Err(failure),
        };
        if ended.is_err() {
            let _ = upload.abort().await; // parts of a dead upload are billed until someone aborts it
        }
        ended
    }

    /// Downloads a file and checks its bytes on the way. Other bytes than expected are fetched a second time.
    pub(super) async fn fetch(&self, key: &str, digest: &Digest, to: &Path) -> Result<Fetched, Failure> {
        for _ in 0..2 {
            let Some(found) = self.read_through(key, Some(to)).await? else { return Ok(Fetched::Missing) };
            if found == *digest {
                return Ok(Fetched::Whole);
            }
            #[cfg(test)]
            if !self.is_checked {
                return Ok(Fetched::Whole);
            }
        }
        Ok(Fetched::Damaged)
    }

    /// Reads an object in pieces, into a file if one is given; gives the digest of what came.
    pub(super) async fn read_through(&self, key: &str, to: Option<&Path>) -> Result<Option<Digest>, Failure> {
        let mut stream = match self.store.get(&self.key(key)).await {
            Ok(found) => found.into_stream(),
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failure("reading", key, error)),
        };
        let unwritable = |error: std::io::Error| Failure::io("writing", to.unwrap_or(Path::new("")), &error);
        let mut file = to.map(File::create).transpose().map_err(unwritable)?;
        let mut hasher = blake3::Hasher::new();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| self.failure("reading", key, error))?;
            hasher.update(&piece);
            if let Some(file) = &mut file {
                file.write_all(&piece).map_err(unwritable)?;
            }
        }
        Ok(Some(Digest::from_bytes(*hasher.finalize().as_bytes())))
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Failure> {
        match self.store.delete(&self.key(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failure("removing", key, error)),
        }
    }

    /// Every object below `prefix`.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Failure> {
        let failed = |error: Error| self.failure("listing", prefix, error);
        let listed = |meta: ObjectMeta| {
            let key: Key = meta.location.prefix_match(&self.prefix)?.collect();
            let changed_ms = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
            Some(Listed { key: key.to_string(), size_bytes: meta.size, changed_ms })
        };
        let found = self.store.list(Some(&self.key(prefix))).map_err(failed);
        let mut found: Vec<Listed> =
            found.try_filter_map(|meta| std::future::ready(Ok(listed(meta)))).try_collect().await?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn failure(&self, doing: &str, key: &str, error: Error) -> Failure {
        let url = &self.url;
        let text = error.to_string();
        let answer = Answer::of(&text);
        let code = answer.as_ref().map_or("", |answer| answer.code);
        let fix = match code {
            "RequestTimeTooSkewed" => "set this machine's clock (`timedatectl` shows it)",
            "SignatureDoesNotMatch" | "InvalidAccessKeyId" => "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            "NoSuchBucket" | "ContainerNotFound" => "make the bucket, or correct its name in `store`",
            _ => "check the network, the bucket's name and the credentials in the environment",
        };
        let is_denied = matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. });
        let (name, message) = match (is_denied, &answer) {
            (true, _) => ("store/denied", format!("the store `{url}` denies {doing} `{key}`")),
            (false, Some(_)) => ("store/refused", format!("the store `{url}` refuses {doing} `{key}`")),
            (false, None) => ("store/unreachable", format!("the store `{url}` does not answer ({doing} `{key}`)")),
        };
        Failure::environment(name, message)
            .cause(answer.map_or_else(|| without_queries(&text), |answer| answer.to_string()))
            .help(format!("{fix}, then run the same command again: what is done stays done"))
    }
}

/// What a server of S3 said in the body of its refusal.
struct Answer<'a> {
    code: &'a str,
    message: &'a str,
}

impl<'a> Answer<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let element = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner)
        };
        Some(Self { code: element("Code")?, message: element("Message").unwrap_or_default() })
    }
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.message.is_empty() { "" } else { ": " };
        write!(formatter, "{}{colon}{}", self.code, self.message)
    }
}

/// The text of an error without the queries of the URLs in it: signatures and tokens stand there.
fn without_queries(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut is_query = false;
    for (at, character) in text.char_indices() {
        is_query = match character {
            '?' if is_query || is_in_url(&text[..at]) => true,
            _ if character.is_whitespace() || matches!(character, ')' | '"' | '\'' | '`') => false,
            _ => is_query,
        };
        if !is_query || character == '?' {
            kept.push(character);
        }
    }
    kept
}

/// Does a URL go on to the end of this text?
fn is_in_url(text: &str) -> bool {
    text.rsplit([' ', '\n', '"', '\'', '`', '(']).next().is_some_and(|last| last.contains("://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &'static str) -> Failure {
        let objects = Objects::new(Arc::new(object_store::memory::InMemory::new()), "", "s3://bucket".into());
        objects.failure("reading", "keys/1", Error::PermissionDenied { path: "keys/1".into(), source: text.into() })
    }

    #[tokio::test]
    async fn what_lies_under_a_prefix_that_is_written_otherwise_is_listed_by_its_key() {
        for prefix in ["", "team", "team//proj/", "~ana/ü/100%"] {
            let objects = Objects::new(Arc::new(object_store::memory::InMemory::new()), prefix, "s3://bucket".into());
            objects.put("keys/1", b"one".to_vec()).await.unwrap();
            let listed = objects.list("keys").await.unwrap();
            assert_eq!(listed.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["keys/1"], "{prefix}");
            objects.delete(&listed[0].key).await.unwrap();
            assert!(objects.list("keys").await.unwrap().is_empty() && objects.list("").await.unwrap().is_empty());
        }
    }

    #[test]
    fn what_the_server_said_is_told_with_its_fix() {
        let skewed = failure(
            "403 Forbidden: <?xml version=\"1.0\"?><Error><Code>RequestTimeTooSkewed</Code><Message>The difference is \
             too large.</Message><StringToSign>canary</StringToSign></Error>",
        );
        assert_eq!(skewed.causes, ["RequestTimeTooSkewed: The difference is too large."]);
        assert!(skewed.help.unwrap().starts_with("set this machine's clock"));
    }

    #[test]
    fn signatures_in_urls_are_not_told() {
        let told = failure("GET http://host/bucket/keys?X-Amz-Signature=canary in 1 ms: why? nobody knows").causes;
        assert!(told[0].ends_with("GET http://host/bucket/keys? in 1 ms: why? nobody knows"), "{told:?}");
    }
}
