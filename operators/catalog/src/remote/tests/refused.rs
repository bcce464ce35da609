use llmflow_contract::Class;

use super::*;
use crate::remote::refuse_pickle;

#[test]
fn a_gated_repository_names_the_page_where_its_licence_is_accepted() {
    let (server, host) = (TestHub::start(), TestHost::new());
    server.put("models/a/m", Repo { gated: Some("another"), ..model() });
    for (hub, advice) in
        [(hub(&server), "then set HF_TOKEN"), (with_token(&server), "the account that HF_TOKEN belongs to")]
    {
        let failure = fetch(&hub, MODEL_FILES, &host).unwrap_err();
        assert_eq!((failure.code.as_str(), failure.class), ("remote/gated", Class::Environment));
        let help = failure.help.clone().unwrap();
        assert!(help.contains(&format!("{}/a/m", server.url)) && help.contains(advice), "{help}");
        assert!(!serde_json::to_string(&failure).unwrap().contains(TOKEN));
    }
}

#[test]
fn a_name_that_is_wrong_gets_the_nearest_that_exists() {
    let (server, host) = (TestHub::start(), TestHost::new());
    server.put("models/someone/small-model", model());
    let ask = |source: &str, pattern: &str| {
        let failure = resolve(&hub(&server), source, pattern, &host).unwrap_err();
        assert_eq!(failure.class, Class::Input, "{failure}");
        (failure.code.clone(), failure.help.unwrap())
    };
    let is = |code: &str, near: &str| (code.to_owned(), format!("did you mean `{near}`?"));
    assert_eq!(ask("hf:someone/smal-model", MODEL_FILES), is("remote/no-repository", "someone/small-model"));
    assert_eq!(ask("hf:someone/small-model@v1.1", MODEL_FILES), is("remote/revision", "v1.0"));
    assert_eq!(ask("hf:someone/small-model", "confg.json"), is("remote/no-file", "config.json"));
}

#[test]
fn a_private_repository_asks_for_a_token_and_opens_with_it() {
    let (server, host) = (TestHub::start(), TestHost::new());
    server.put("models/a/m", Repo { private: Some(TOKEN), ..model() });
    server.fail("search", (0..9).map(|_| server::Fault::Status(500, "")));
    let failure = resolve(&hub(&server), "hf:a/m", MODEL_FILES, &host).unwrap_err();
    assert!(failure.help.as_deref().unwrap().contains("set HF_TOKEN"), "{failure:?}");
    resolve(&with_token(&server), "hf:a/m", MODEL_FILES, &host).unwrap();
}

#[test]
fn a_repository_of_pickles_says_why_it_is_not_read() {
    let (server, host) = (TestHub::start(), TestHost::new());
    server.put("models/a/m", Repo::default().with("pytorch_model.bin", "x"));
    let failure = resolve(&hub(&server), "hf:a/m", MODEL_FILES, &host).unwrap_err();
    assert!(failure.help.unwrap().contains("safetensors"));
    for name in ["pytorch_model.bin", "x/model.PT", "a.ckpt"] {
        assert_eq!(refuse_pickle(name, "file").unwrap_err().code, "remote/pickle");
    }
    refuse_pickle("model.gguf", "file").unwrap();
}
