use std::{fs, os::unix::fs::symlink, path::Path};

use super::*;

/// The folder that `transformers` leaves behind: blobs by digest, a snapshot of links, a ref.
fn cache(folder: &Path, repo: &Repo, files: &[(&str, &[u8])]) -> String {
    let commit = repo.commit();
    let root = folder.join("models--a--m");
    let snapshot = root.join("snapshots").join(&commit);
    for inner in [root.join("blobs"), root.join("refs"), snapshot.clone()] {
        fs::create_dir_all(inner).unwrap();
    }
    fs::write(root.join("refs/main"), &commit).unwrap();
    for (path, bytes) in files {
        let digest = server::etag(path, bytes);
        fs::write(root.join("blobs").join(&digest), bytes).unwrap();
        symlink(Path::new("../../blobs").join(&digest), snapshot.join(path)).unwrap();
    }
    commit
}

fn files(weights: &[u8]) -> Vec<(&'static str, &[u8])> {
    vec![("config.json", b"{}"), ("tokenizer.json", b"{\"a\": 1}"), ("model.safetensors", weights)]
}

#[test]
fn a_commit_in_the_cache_is_read_in_place_without_a_single_request() {
    let (server, host, folder) = (TestHub::start(), TestHost::new(), tempfile::tempdir().unwrap());
    let weights = pseudo_random(5000);
    let commit = cache(folder.path(), &model(), &files(&weights));
    let hub = Hub { caches: vec![folder.path().to_owned()], ..hub(&server) };
    let locked = resolve(&hub, &format!("hf:a/m@{commit}"), MODEL_FILES, &host).unwrap();
    let fetched = hub.fetch(&repository("hf:a/m"), &commit, &locked.files, &host.context()).unwrap();
    assert_eq!(contents(&fetched)["model.safetensors"], weights);
    assert!(fetched.values().all(|path| path.starts_with(folder.path())), "{fetched:?}");
    assert!(server.log().is_empty() && !host.context().downloads().exists());
}

#[test]
fn a_branch_is_asked_for_and_only_without_a_network_taken_from_the_cache() {
    let (server, host, folder) = (TestHub::start(), TestHost::new(), tempfile::tempdir().unwrap());
    let old = cache(folder.path(), &model(), &files(&pseudo_random(5000)));
    let newer = server.put("models/a/m", model().with("config.json", "{\"new\": true}"));
    let hub = Hub { caches: vec![folder.path().to_owned()], ..hub(&server) };
    let online = resolve(&hub, "hf:a/m", MODEL_FILES, &host).unwrap();
    assert_eq!(online.revision, newer);
    let fetched = hub.fetch(&repository("hf:a/m"), &newer, &online.files, &host.context()).unwrap();
    assert!(fetched["model.safetensors"].starts_with(folder.path()), "unchanged files of other commits are used too");
    assert!(!fetched["config.json"].starts_with(folder.path()));
    let offline = Hub { is_offline: true, ..hub };
    assert_eq!(resolve(&offline, "hf:a/m", MODEL_FILES, &host).unwrap().revision, old);
}

#[test]
fn a_cache_that_lacks_a_shard_or_holds_a_damaged_file_is_made_good_from_the_hub() {
    let (server, host, folder) = (TestHub::start(), TestHost::new(), tempfile::tempdir().unwrap());
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let repo = Repo::default()
        .with("config.json", "{}")
        .with("tokenizer.json", "{}")
        .with("model.safetensors.index.json", index)
        .with("model-00001-of-00002.safetensors", "one")
        .with("model-00002-of-00002.safetensors", "two");
    let have: Vec<(&str, &[u8])> = vec![
        ("config.json", b"{}"),
        ("tokenizer.json", b"{}"),
        ("model.safetensors.index.json", index.as_bytes()),
        ("model-00001-of-00002.safetensors", b"one"),
    ];
    server.put("models/a/m", repo.clone());
    let commit = cache(folder.path(), &repo, &have);
    let hub = Hub { caches: vec![folder.path().to_owned()], ..hub(&server) };
    let source = format!("hf:a/m@{commit}");
    let locked = resolve(&hub, &source, MODEL_FILES, &host).unwrap();
    assert_eq!(locked.files.len(), 5, "a snapshot without its second shard does not say what the commit holds");
    let blob = server::etag("model-00001-of-00002.safetensors", b"one");
    fs::write(folder.path().join("models--a--m/blobs").join(blob), "ONE").unwrap();
    let fetched = hub.fetch(&repository(&source), &commit, &locked.files, &host.context()).unwrap();
    assert_eq!(contents(&fetched)["model-00001-of-00002.safetensors"], b"one");
    assert_eq!(contents(&fetched)["model-00002-of-00002.safetensors"], b"two");
}

#[test]
fn the_cache_lies_where_its_variables_say() {
    let of = |set: &[(&str, &str)]| {
        let find = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        super::super::cache::folders(&find).pop().unwrap()
    };
    assert_eq!(of(&[("HOME", "/h")]), Path::new("/h/.cache/huggingface/hub"));
    assert_eq!(of(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
    assert_eq!(of(&[("HOME", "/h"), ("HF_HOME", "/f")]), Path::new("/f/hub"));
    assert_eq!(of(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
}
