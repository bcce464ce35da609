use llmflow_contract::{Class, FileDigest};
use server::Fault;

use super::*;

const WEIGHTS: &str = "model.safetensors";

fn setting() -> (TestHub, TestHost) {
    let server = TestHub::start();
    server.put("models/a/m", model());
    (server, TestHost::new())
}

/// The ranges that the store was asked for.
fn ranges(server: &TestHub) -> Vec<Option<String>> {
    server.log().into_iter().filter(|asked| asked.of_store).map(|asked| asked.range).collect()
}

fn fetched_whole(server: &TestHub, host: &TestHost) {
    assert_eq!(contents(&fetch(&hub(server), WEIGHTS, host).unwrap())[WEIGHTS], pseudo_random(5000));
}

#[test]
fn a_connection_cut_again_and_again_goes_on_where_it_was_cut() {
    let (server, host) = setting();
    server.fail("/blob/", (0..12).map(|_| Fault::Cut(300)));
    fetched_whole(&server, &host);
    let ranges = ranges(&server);
    assert_eq!(ranges[0], None);
    assert!(ranges.len() == 13 && ranges[12].as_deref() == Some("bytes=3600-"), "{ranges:?}");
}

#[test]
fn a_later_process_goes_on_from_the_part_of_an_earlier_one() {
    let (server, host) = setting();
    server.fail("/blob/", [Fault::Cut(2000)].into_iter().chain((0..9).map(|_| Fault::Cut(0))));
    let failure = fetch(&hub(&server), WEIGHTS, &host).unwrap_err();
    assert!(matches!(failure.class, Class::Transient { .. }), "{failure}");
    assert_eq!(ranges(&server).len(), 5, "the first brought something; then tries that bring nothing are counted");
    let (again, _) = setting();
    fetched_whole(&again, &host);
    assert_eq!(ranges(&again), [Some("bytes=2000-".to_owned())]);
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let (server, host) = setting();
    server.fail("/blob/", [Fault::Cut(300), Fault::NoRange]);
    fetched_whole(&server, &host);
}

#[test]
fn a_part_damaged_meanwhile_is_thrown_away_and_fetched_anew() {
    let (server, host) = setting();
    let digest = server::etag(WEIGHTS, &pseudo_random(5000));
    std::fs::create_dir_all(host.context().downloads()).unwrap();
    let part = host.context().downloads().join(format!("{digest}.incomplete"));
    for damaged in [vec![7; 100], vec![7; 5000], vec![7; 9000]] {
        std::fs::write(&part, damaged).unwrap();
        fetched_whole(&server, &host);
        std::fs::remove_file(host.context().downloads().join(&digest)).unwrap();
    }
}

#[test]
fn one_wrong_byte_is_noticed_and_nothing_of_the_file_is_kept() {
    let (server, host) = setting();
    server.fail("/blob/", [Fault::Flip]);
    let failure = fetch(&hub(&server), WEIGHTS, &host).unwrap_err();
    assert_eq!((failure.code.as_str(), failure.class), ("remote/digest", Class::Environment));
    assert!(failure.message.contains(&server::etag(WEIGHTS, &pseudo_random(5000))), "{failure}");
    fetched_whole(&server, &host);
}

/// The control of the test above: where the wrong byte is what the lock says, the same path takes it.
#[test]
fn it_is_the_digest_that_refuses_the_wrong_byte() {
    let (server, host) = setting();
    let mut locked = resolve(&hub(&server), "hf:a/m", WEIGHTS, &host).unwrap();
    let mut wrong = pseudo_random(5000);
    wrong[0] ^= 1;
    let file = locked.files.get_mut(WEIGHTS).unwrap();
    file.digest = FileDigest::Sha256(server::etag(WEIGHTS, &wrong));
    server.fail("/blob/", [Fault::Flip]);
    let fetched = hub(&server).fetch(&repository("hf:a/m"), &locked.revision, &locked.files, &host.context()).unwrap();
    assert_eq!(contents(&fetched)[WEIGHTS], wrong);
}

#[test]
fn a_file_that_does_not_end_where_it_should_is_refused() {
    let (server, host) = setting();
    server.fail("/blob/", [Fault::Longer]);
    assert_eq!(fetch(&hub(&server), WEIGHTS, &host).unwrap_err().code, "remote/size");
}

#[test]
fn a_file_damaged_after_its_download_is_fetched_again() {
    let (server, host) = setting();
    let path = fetch(&hub(&server), WEIGHTS, &host).unwrap()[WEIGHTS].clone();
    for damaged in [vec![7; 5000], vec![7; 10]] {
        std::fs::write(&path, damaged).unwrap();
        fetched_whole(&server, &host);
    }
}

#[test]
fn a_slow_server_is_waited_for_and_a_silent_one_is_not() {
    let (server, host) = setting();
    server.fail("/blob/", [Fault::Stall, Fault::Drip]);
    fetched_whole(&server, &host);
    assert_eq!(ranges(&server), [None, Some("bytes=2500-".to_owned())]);
}

#[test]
fn a_stage_that_is_asked_to_stop_stops_though_the_server_is_silent() {
    let (server, host) = setting();
    let patient = Hub { stall: Duration::from_secs(600), ..hub(&server) };
    server.fail("/blob/", [Fault::Stall]);
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| fetch(&patient, WEIGHTS, &host));
        server.wait_for("blob");
        host.cancel();
        assert_eq!(fetching.join().unwrap().unwrap_err().class, Class::Cancelled);
    });
}

#[test]
fn a_busy_hub_is_asked_again_and_a_very_busy_one_is_left_to_the_stages_retry() {
    let (server, host) = setting();
    server.fail("revision", [Fault::Status(429, "Retry-After: 0"), Fault::Status(503, "")]);
    server.fail("/blob/", [Fault::Status(500, ""), Fault::Status(403, "")]); // an address that has expired
    fetched_whole(&server, &host);
    server.fail("revision", [Fault::Status(429, "Retry-After: 3600")]);
    let failure = fetch(&hub(&server), WEIGHTS, &host).unwrap_err();
    assert_eq!(failure.class, Class::Transient { after: Some(Duration::from_secs(3600)) });
    server.fail("revision", (0..9).map(|_| Fault::Status(502, "")));
    server.forget();
    assert_eq!(fetch(&hub(&server), WEIGHTS, &host).unwrap_err().code, "remote/busy");
    assert_eq!(server.log().len(), 5, "patience ends");
}

#[test]
fn a_redirect_to_another_host_without_https_and_one_without_end_are_not_followed() {
    let (server, host) = setting();
    server.fail("resolve", [Fault::Redirect("http://example.invalid/x".into())]);
    let failure = fetch(&with_token(&server), WEIGHTS, &host).unwrap_err();
    assert!(failure.code == "remote/redirect" && failure.message.contains("example.invalid"), "{failure}");
    server.fail("resolve", (0..20).map(|_| Fault::Redirect(format!("/a/m/resolve/{}/{WEIGHTS}", model().commit()))));
    assert_eq!(fetch(&hub(&server), WEIGHTS, &host).unwrap_err().code, "remote/redirect");
}

#[test]
fn neither_token_nor_signature_is_in_any_failure() {
    let (server, host) = setting();
    server.fail("/blob/", (0..9).map(|_| Fault::Cut(0)));
    let failure = fetch(&with_token(&server), WEIGHTS, &host).unwrap_err();
    let said = serde_json::to_string(&failure).unwrap();
    assert!(!said.contains(TOKEN) && !said.contains("signature"), "{said}");
}
