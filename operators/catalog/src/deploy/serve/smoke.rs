//! Asks a server over HTTP as a client would, whole and streamed.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use llmflow_contract::Failure;
use serde_json::{Value, json};

use super::spec::Params;
use crate::http;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the server said, and how long it took.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub answer: String,
    pub tokens: u64,
    /// Of the whole answer.
    pub seconds: f64,
    /// Until the first piece of the streamed one.
    pub first_piece_seconds: f64,
    /// The streamed answer.
    pub streamed: String,
}

/// Asks `/health`, `/v1/models`, then the prompt, whole and streamed, greedily.
///
/// # Errors
/// `serve/smoke-test` if anything is not as the protocol says.
pub(super) async fn ask(address: SocketAddr, params: &Params) -> Result<Asked, Failure> {
    let client = http::client().no_proxy().timeout(PATIENCE).build().map_err(failed)?;
    let url = |path: &str| format!("http://{address}{path}");
    get(&client, &url("/health")).await?;
    let models = get(&client, &url("/v1/models")).await?;
    if models["data"][0]["id"] != json!(params.model_name) {
        return Err(refused(format!("`/v1/models` names another model: {models}")));
    }
    let mut body = json!({
        "model": params.model_name,
        "messages": [{"role": "user", "content": params.smoke_test.prompt}],
        "temperature": 0,
    });
    let started = Instant::now();
    let response = client.post(url("/v1/chat/completions")).json(&body).send().await.map_err(failed)?;
    let status = response.status();
    let value: Value = response.json().await.map_err(failed)?;
    if !status.is_success() {
        return Err(refused(format!("the server answered {status}: {}", value["error"]["message"])));
    }
    let mut asked = Asked { seconds: started.elapsed().as_secs_f64(), ..Asked::default() };
    let answer = value["choices"][0]["message"]["content"].as_str();
    asked.answer = answer.ok_or_else(|| refused("the answer has no text".into()))?.to_owned();
    asked.tokens = value["usage"]["completion_tokens"].as_u64().unwrap_or_default();
    body["stream"] = json!(true);
    stream(&client, &url("/v1/chat/completions"), &body, &mut asked).await?;
    if asked.streamed != asked.answer {
        return Err(refused(format!("streamed it answered `{}`, whole `{}`", asked.streamed, asked.answer)));
    }
    Ok(asked)
}

async fn get(client: &reqwest::Client, url: &str) -> Result<Value, Failure> {
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    response.json().await.map_err(failed)
}

async fn stream(client: &reqwest::Client, url: &str, body: &Value, asked: &mut Asked) -> Result<(), Failure> {
    let started = Instant::now();
    let mut response = client.post(url).json(body).send().await.map_err(failed)?;
    let (mut bytes, mut is_done) = (Vec::new(), false);
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = bytes.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some(data) = line.trim_end().strip_prefix("data: ") else { continue };
            is_done |= data == "[DONE]";
            let value: Value = serde_json::from_str(data).unwrap_or_default();
            if let Some(piece) = value["choices"][0]["delta"]["content"].as_str().filter(|piece| !piece.is_empty()) {
                if asked.streamed.is_empty() {
                    asked.first_piece_seconds = started.elapsed().as_secs_f64();
                }
                asked.streamed.push_str(piece);
            }
        }
    }
    if is_done { Ok(()) } else { Err(refused("the stream ended without `[DONE]`".into())) }
}

fn failed(error: reqwest::Error) -> Failure {
    Failure::environment("serve/unreachable", "the server that was just started does not answer").cause(error)
}

fn refused(message: String) -> Failure {
    Failure::input("serve/smoke-test", message)
}
