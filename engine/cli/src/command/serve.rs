//! `serve`, and `run --serve`.

use std::{net::SocketAddr, path::PathBuf};

use llmflow_contract::Failure;
use llmflow_runtime::run::{self, Cancel, Error};
use serde_json::{Map, Value};

use super::{DONE, Setting, block_on};
use crate::{args::ServeArgs, interrupt::Interrupts};

/// Keeps a model up until Ctrl-C.
pub fn serve(args: ServeArgs, setting: &Setting) -> Result<u8, Error> {
    let params = params(&args.set)?;
    block_on(keep_up(&args.address, params, setting.home.clone(), setting))
}

/// Serves an artifact, says where, and ends at the first signal.
pub async fn keep_up(address: &str, params: Value, home: Option<PathBuf>, setting: &Setting<'_>) -> Result<u8, Error> {
    let cancel = Cancel::new();
    let _interrupts = Interrupts::watch(cancel.clone(), setting.screen, "stopping the server")?;
    let screen = setting.screen;
    screen.say(&format!("starting the server of {address} …"));
    let ready = |at: SocketAddr| {
        if screen.json {
            screen.print_json(&serde_json::json!({ "event": "serving", "address": address, "url": url(at) }));
        } else {
            screen.print(&invitation(address, at));
            screen.say("Ctrl-C stops it");
        }
    };
    run::serve(address, params, home, setting.registry, ready, cancel).await?;
    Ok(DONE)
}

/// Where it is, and a line that can be pasted.
fn invitation(address: &str, at: SocketAddr) -> String {
    let url = url(at);
    let body = r#"{"messages":[{"role":"user","content":"What can you do?"}]}"#;
    format!(
        "serving {address} at {url}/v1\n  curl {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'\n"
    )
}

/// The server's address as a client on this machine types it.
pub fn url(at: SocketAddr) -> String {
    let mut at = at;
    if at.ip().is_unspecified() {
        at.set_ip(if at.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{at}")
}

/// `name=value` as params; a value that is JSON is taken as such.
///
/// # Errors
/// `cli/set` if there is no `=`.
pub fn params(set: &[String]) -> Result<Value, Failure> {
    let mut params = Map::new();
    for text in set {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Failure::input("cli/set", format!("`--set {text}` has no `=`")).help("write `--set port=8080`")
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        params.insert(name.trim().to_owned(), value);
    }
    Ok(Value::Object(params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_are_numbers_or_text() {
        let found = params(&["port=8080".into(), "model_name=a=b".into()]).unwrap();
        assert_eq!(found, serde_json::json!({"port": 8080, "model_name": "a=b"}));
        assert!(params(&["port".into()]).is_err());
    }

    #[test]
    fn an_address_for_all_networks_is_printed_as_one_that_can_be_opened() {
        assert_eq!(url("0.0.0.0:80".parse().unwrap()), "http://127.0.0.1:80");
        insta::assert_snapshot!(invitation("@/gguf", "127.0.0.1:8080".parse().unwrap()), @r#"
        serving @/gguf at http://127.0.0.1:8080/v1
          curl http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json' -d '{"messages":[{"role":"user","content":"What can you do?"}]}'
        "#);
    }
}
