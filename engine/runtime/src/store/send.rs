//! Sending: an artifact's files to a place in an object store that the user names, as anybody's tools read them there.

use std::path::Path;

use llmflow_contract::{AnyArtifact, Failure, Manifest};

use super::{backend::Backend, is_one_file, location, objects::Objects};

/// Copies an artifact to a URL: its one file, or all of them below it; see [`is_one_file`].
///
/// # Errors
/// Class `input` for a URL that is no place in an object store; of the environment if that does not answer.
pub async fn send(artifact: &AnyArtifact, url: &str) -> Result<(), Failure> {
    let (objects, names) = open(&artifact.manifest, url)?;
    for (file, name) in artifact.manifest.files.iter().zip(names) {
        objects.upload(&name, &artifact.root.join(&file.path), file.size_bytes).await?;
    }
    Ok(())
}

/// Is every file of an artifact there in full size?
///
/// # Errors
/// As [`send`].
pub async fn is_sent(manifest: &Manifest, url: &str) -> Result<bool, Failure> {
    let (objects, names) = open(manifest, url)?;
    for (file, name) in manifest.files.iter().zip(names) {
        if objects.size(&name).await? != Some(file.size_bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The object store, and each file's name in it.
fn open(manifest: &Manifest, url: &str) -> Result<(Objects, Vec<String>), Failure> {
    let place = Path::new(url);
    let is_file = is_one_file(manifest, place);
    let folder = if is_file { place.parent().and_then(Path::to_str).unwrap_or(url) } else { url.trim_end_matches('/') };
    let Backend::Objects(objects) = location::open(folder)? else {
        return Err(Failure::input("publish/url", format!("`{url}` is no place in an object store"))
            .help("write `s3://BUCKET/PATH`, or a path relative to the pipeline file"));
    };
    let names = match place.file_name().and_then(std::ffi::OsStr::to_str).filter(|_| is_file) {
        Some(name) => vec![name.to_owned()],
        None => manifest.files.iter().map(|file| file.path.clone()).collect(),
    };
    Ok((objects, names))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use llmflow_contract::{Digest, Facts, FileEntry, Kind};

    use super::*;

    #[tokio::test]
    async fn what_is_sent_lies_under_the_name_that_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.gguf"), "bytes").unwrap();
        let files = vec![FileEntry::new("model.gguf", Digest::of(b"bytes"), 5)];
        let manifest =
            Manifest { kind: Kind::new("gguf"), files, facts: Facts::default(), references: BTreeMap::new() };
        let (digest, root) = (manifest.digest(), folder.path().to_owned());
        let artifact = AnyArtifact { digest, manifest, root, references: BTreeMap::new(), label: None };
        let url = "memory://sent/mine.gguf";
        assert!(!is_sent(&artifact.manifest, url).await.unwrap());
        send(&artifact, url).await.unwrap();
        assert!(is_sent(&artifact.manifest, url).await.unwrap());
        let Backend::Objects(objects) = location::open("memory://sent").unwrap() else { panic!("no objects") };
        assert_eq!(objects.get("mine.gguf").await.unwrap().unwrap(), b"bytes");
        assert!(send(&artifact, "file:///tmp/x").await.is_err());
    }
}
