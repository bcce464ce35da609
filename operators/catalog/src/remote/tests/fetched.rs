use super::*;

#[test]
fn files_come_once_whole_and_are_used_again() {
    let (server, host) = (TestHub::start(), TestHost::new());
    server.put("models/a/m", model());
    let fetched = contents(&fetch(&hub(&server), MODEL_FILES, &host).unwrap());
    assert_eq!(fetched["model.safetensors"], pseudo_random(5000));
    assert_eq!(fetched["tokenizer.json"], b"{\"a\": 1}");
    let last = host.progress_seen().into_iter().next_back().unwrap();
    assert_eq!((last.done, last.total, last.unit.as_str()), (5010, Some(5010), "bytes"));
    server.forget();
    fetch(&hub(&server), MODEL_FILES, &host).unwrap();
    assert_eq!(server.log().len(), 1, "the listing alone");
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let (server, host) = (TestHub::start(), TestHost::new());
    server.put("models/a/m", Repo { gated: Some(TOKEN), ..model() });
    fetch(&with_token(&server), MODEL_FILES, &host).unwrap();
    let (store, own): (Vec<_>, Vec<_>) = server.log().into_iter().partition(|asked| asked.of_store);
    assert!(!store.is_empty() && store.iter().all(|asked| asked.token.is_none()), "{store:?}");
    assert!(own.iter().all(|asked| asked.token.as_deref() == Some(TOKEN)), "{own:?}");
}

#[test]
fn many_files_of_one_content_are_fetched_without_standing_in_each_others_way() {
    let (server, host) = (TestHub::start(), TestHost::new());
    let same = (0..9).fold(Repo::default(), |repo, n| repo.with(&format!("{n}.jsonl"), "{\"text\": \"a\"}"));
    server.put("models/a/m", same);
    assert_eq!(fetch(&hub(&server), "*.jsonl", &host).unwrap().len(), 9);
}

#[test]
fn two_processes_share_one_download() {
    let (server, host) = (TestHub::start(), TestHost::new());
    server.put("models/a/m", model());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fetch(&hub(&server), "model.safetensors", &host).unwrap());
        }
    });
    let downloads = server.log().iter().filter(|asked| asked.of_store).count();
    assert_eq!(downloads, 1);
}

#[test]
fn without_a_network_what_is_here_is_used_and_what_is_not_is_an_error() {
    let (server, host) = (TestHub::start(), TestHost::new());
    server.put("models/a/m", model());
    let locked = resolve(&hub(&server), "hf:a/m", MODEL_FILES, &host).unwrap();
    let offline = Hub { is_offline: true, ..hub(&server) };
    let again = |hub: &Hub| hub.fetch(&repository("hf:a/m"), &locked.revision, &locked.files, &host.context());
    server.forget();
    let failure = again(&offline).unwrap_err();
    assert_eq!(failure.code, "remote/offline");
    assert!(failure.help.unwrap().contains("llmflow fetch") && server.log().is_empty());
    again(&hub(&server)).unwrap();
    server.forget();
    again(&offline).unwrap();
    assert_eq!(resolve(&offline, "hf:a/m", MODEL_FILES, &host).unwrap_err().code, "remote/offline");
    assert!(server.log().is_empty());
}
