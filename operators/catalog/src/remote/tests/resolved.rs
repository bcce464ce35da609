use llmflow_contract::FileDigest;

use super::*;

#[test]
fn a_branch_becomes_a_commit_and_its_files_sizes_and_digests() {
    let (server, host) = (TestHub::start(), TestHost::new());
    let commit = server.put("models/a/m", model());
    let locked = resolve(&hub(&server), "hf:a/m", MODEL_FILES, &host).unwrap();
    assert_eq!(locked.revision, commit);
    assert_eq!(sizes(&locked.files), [("config.json", 2), ("model.safetensors", 5000), ("tokenizer.json", 8)]);
    let digest = |path: &str| locked.files[path].digest.clone();
    assert_eq!(digest("config.json"), FileDigest::GitSha1(server::etag("config.json", b"{}")));
    assert!(matches!(digest("model.safetensors"), FileDigest::Sha256(hex) if hex.len() == 64));
    assert_eq!(server.log().len(), 1, "the listing says it all");
}

#[test]
fn where_the_listing_has_names_only_each_chosen_file_is_asked_for() {
    let (server, host) = (TestHub::start(), TestHost::new());
    server.put("models/a/m", model());
    let whole = resolve(&hub(&server), "hf:a/m", MODEL_FILES, &host).unwrap();
    server.put("models/a/m", Repo { lists_names_only: true, ..model() });
    server.forget();
    assert_eq!(resolve(&hub(&server), "hf:a/m", MODEL_FILES, &host).unwrap(), whole);
    let asked: Vec<String> = server.log().into_iter().map(|asked| asked.method).collect();
    assert_eq!(asked, ["GET", "HEAD", "HEAD", "HEAD"]);
    assert!(server.log().iter().all(|asked| !asked.of_store), "the store is not needed to know a digest");
}

#[test]
fn tags_pull_requests_and_datasets_are_found_under_their_own_addresses() {
    let (server, host) = (TestHub::start(), TestHost::new());
    server.put("models/a/m", model());
    server.put("datasets/a/d", Repo::default().with("data/train-0.parquet", "x").with("data/test.parquet", "y"));
    for source in ["hf:a/m@v1.0", "hf:a/m@refs/pr/1", &format!("hf:a/m@{}", model().commit())] {
        resolve(&hub(&server), source, "config.json", &host).unwrap();
    }
    let dataset = Repository::parse("hf:a/d", RepositoryKind::Dataset).unwrap();
    let train = Select::new("data/train-*.parquet").unwrap();
    let locked = hub(&server).resolve(&dataset, &train, None, &host.context()).unwrap();
    assert_eq!(sizes(&locked.files), [("data/train-0.parquet", 1)]);
    let fetched = hub(&server).fetch(&dataset, &locked.revision, &locked.files, &host.context()).unwrap();
    assert_eq!(contents(&fetched)["data/train-0.parquet"], b"x");
}

#[test]
fn a_listing_whose_paths_leave_their_folder_is_refused() {
    for path in ["../config.json", "/config.json", "a/../../config.json", "a//config.json"] {
        let (server, host) = (TestHub::start(), TestHost::new());
        server.put("models/a/m", Repo::default().with(path, "x"));
        let failure = resolve(&hub(&server), "hf:a/m", "**", &host).unwrap_err();
        assert_eq!(failure.code, "remote/path", "{path}");
    }
}

#[test]
fn what_is_no_hub_is_said_to_be_none() {
    let (server, host) = (TestHub::start(), TestHost::new());
    server.put("models/a/m", model());
    server.fail("revision", [server::Fault::Status(200, "")]);
    let failure = resolve(&hub(&server), "hf:a/m", MODEL_FILES, &host).unwrap_err();
    assert_eq!(failure.code, "remote/protocol");
    assert!(Hub::from(&|name| (name == "HF_ENDPOINT").then(|| "ftp://x".into())).is_err());
}
