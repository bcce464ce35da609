use std::{
    net::{SocketAddr, TcpListener},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use llmflow_contract::{Artifact, Class, Operator as _};
use serde_json::{Value, json};

use super::{Params, Port, Serve, SmokeTest, spec::In};
use crate::{
    model::toy,
    testing::{TestHost, known},
};

fn params() -> Params {
    Params { system: None, max_tokens: 6, max_body_bytes: 4096, ..Params::default() }
}

/// Stops the server when it goes, however its test ends.
struct Stop<'a>(&'a TestHost);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Runs `ask` against a server of the toy model, then stops it.
fn with_server<T: Send>(params: Params, ask: impl AsyncFnOnce(reqwest::Client, String) -> T + Send) -> T {
    let host = TestHost::new();
    let inputs = In { model: Artifact::new(toy::model(&host)) };
    let (ready, address) = channel::<SocketAddr>();
    let (host, ready) = (&host, ready);
    thread::scope(|scope| {
        let server = scope.spawn(move || {
            Serve::serve(params, inputs, &host.context(), &|address| ready.send(address).unwrap()).unwrap();
        });
        let address = address.recv().unwrap();
        let client = crate::http::client().no_proxy().build().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stop = Stop(host);
        let result = runtime.block_on(ask(client, format!("http://{address}")));
        drop(stop);
        let asked_to_stop = Instant::now();
        server.join().unwrap();
        assert!(asked_to_stop.elapsed() < Duration::from_secs(5));
        result
    })
}

async fn post(client: &reqwest::Client, url: String, body: Value) -> (u16, Value) {
    let response = client.post(url).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[test]
fn answers_whole_and_streamed_are_the_same_and_counted() {
    with_server(params(), async |client, url| {
        let body = json!({"model": "model", "messages": [{"role": "user", "content": "one two"}]});
        let (status, whole) = post(&client, format!("{url}/v1/chat/completions"), body.clone()).await;
        assert_eq!((status, whole["object"].as_str()), (200, Some("chat.completion")));
        let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(["stop", "length"].contains(&whole["choices"][0]["finish_reason"].as_str().unwrap()));
        assert!(whole["usage"]["completion_tokens"].as_u64().unwrap() <= 6);

        let mut body = body;
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let response = client.post(format!("{url}/v1/chat/completions")).json(&body).send().await.unwrap();
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        let events = response.text().await.unwrap();
        let data: Vec<&str> = events.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.last(), Some(&"[DONE]"));
        let pieces: Vec<Value> =
            data[..data.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect();
        let streamed: String =
            pieces.iter().filter_map(|piece| piece["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(streamed, text);
        assert_eq!(pieces.last().unwrap()["usage"], whole["usage"]);
    });
}

#[test]
fn a_seed_repeats_a_sampled_answer_and_a_stop_ends_it() {
    with_server(params(), async |client, url| {
        let ask = |more: Value| {
            let mut body = json!({"prompt": "one two", "temperature": 2.0, "seed": 7, "max_tokens": 12});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            post(&client, format!("{url}/v1/completions"), body)
        };
        let first = ask(json!({})).await.1["choices"][0]["text"].as_str().unwrap().to_owned();
        assert_eq!(ask(json!({})).await.1["choices"][0]["text"], json!(first));
        let Some((at, stop)) = first.char_indices().nth(2) else { return };
        let stopped = ask(json!({"stop": [stop.to_string()]})).await.1;
        let cut = first.find(stop).unwrap_or(at);
        assert_eq!(stopped["choices"][0]["text"], json!(first[..cut]));
        assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    });
}

#[test]
fn refusals_have_openais_shape() {
    with_server(params(), async |client, url| {
        let chat = format!("{url}/v1/chat/completions");
        let turn = |text: &str| json!([{"role": "user", "content": text}]);
        let (status, body) = post(&client, chat.clone(), json!({"messages": turn("a"), "n": 3})).await;
        assert_eq!((status, body["error"]["type"].as_str()), (400, Some("invalid_request_error")));
        let (status, body) = post(&client, chat.clone(), json!({"messages": turn("a"), "model": "other"})).await;
        assert_eq!((status, body["error"]["code"].as_str()), (404, Some("model_not_found")));
        let (status, body) = post(&client, chat.clone(), json!({"messages": turn(&"zq".repeat(100))})).await;
        assert_eq!((status, body["error"]["code"].as_str()), (400, Some("context_length_exceeded")));
        assert_eq!(post(&client, chat.clone(), json!({"messages": turn(&"a".repeat(5000))})).await.0, 413);
        assert_eq!(post(&client, format!("{url}/v1/nothing"), json!({})).await.0, 404);
        let wrong = client.get(&chat).send().await.unwrap();
        assert_eq!(wrong.status(), 405);
        assert!(wrong.json::<Value>().await.unwrap()["error"]["message"].is_string());
        let models: Value = client.get(format!("{url}/v1/models")).send().await.unwrap().json().await.unwrap();
        assert_eq!(models["data"][0]["id"], "model");
        assert_eq!(client.get(format!("{url}/health")).send().await.unwrap().status(), 200);
    });
}

#[test]
fn a_client_that_goes_away_frees_the_server_and_a_full_queue_says_so() {
    with_server(Params { queue: 1, ..params() }, async |client, url| {
        let body = json!({"prompt": "one", "max_tokens": 50});
        let ask = || client.post(format!("{url}/v1/completions")).json(&body).send();
        for _ in 0..8 {
            // Dropped after a moment, answered or not.
            let _ = tokio::time::timeout(Duration::from_millis(1), ask()).await;
        }
        let statuses = futures::future::join_all((0..24).map(|_| ask())).await;
        let statuses: Vec<u16> = statuses.into_iter().map(|response| response.unwrap().status().as_u16()).collect();
        // On a busy machine every one of them may find the queue full of those that went away.
        assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
        // Once it is idle again it answers.
        loop {
            if ask().await.unwrap().status() == 200 {
                break;
            }
        }
    });
}

#[test]
fn as_a_stage_it_is_asked_reports_and_stops() {
    let host = TestHost::new();
    let inputs = || In { model: Artifact::new(toy::model(&host)) };
    let test = |matches: &str| SmokeTest { prompt: "one two".into(), matches: matches.into() };
    let good = Params { smoke_test: test("(?s).*"), ..params() };
    Serve::run(good, inputs(), &host.context()).unwrap();
    assert_eq!(host.stage_report().samples[0].texts[0].1, "one two");
    assert!(host.metric("answer_tokens").is_some());
    let bad = Params { smoke_test: test("nothing says this"), ..params() };
    let failure = Serve::run(bad, inputs(), &host.context()).unwrap_err();
    assert_eq!((failure.class, failure.code.as_str()), (Class::Input, "serve/smoke-test"));
    assert!(failure.message.contains("the server answered `"));
}

#[test]
fn a_port_in_use_names_the_port_and_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let host = TestHost::new();
    let params = Params { port: Port::Number(port.into()), ..params() };
    let failure = Serve::run(params, In { model: Artifact::new(toy::model(&host)) }, &host.context()).unwrap_err();
    assert_eq!((failure.class, failure.code.as_str()), (Class::Environment, "serve/port-in-use"));
    assert!(failure.message.contains(&port.to_string()) && failure.help.unwrap().contains("port: auto"));
}

#[test]
fn what_cannot_be_served_is_refused_at_planning() {
    let plan = |params: Params| Serve::plan(&mut params.clone(), &known("".into(), &[]));
    let with = |value: Value| serde_json::from_value::<Params>(value).unwrap();
    assert_eq!(plan(with(json!({"host": "nowhere"}))).unwrap_err().param.as_deref(), Some("host"));
    let bad = with(json!({"smoke_test": {"prompt": "a", "matches": "("}}));
    assert_eq!(plan(bad).unwrap_err().param.as_deref(), Some("smoke_test.matches"));
    assert_eq!(with(json!({"port": "auto"})).port, Params::default().port);
    assert_eq!(with(json!({"port": 8080})).port, Port::Number(8080));
    for port in [json!(-1), json!(0), json!(99_999), json!(u64::MAX)] {
        let failure = plan(with(json!({"port": port}))).unwrap_err();
        assert_eq!(failure.param.as_deref(), Some("port"));
        assert!(failure.message.contains("`auto` or a number from 1 to 65535"), "{failure}");
    }
    for port in [json!("8080"), json!(80.5)] {
        let error = serde_json::from_value::<Params>(json!({"port": port})).unwrap_err().to_string();
        assert!(error.contains("`auto` or a number from 1 to 65535"), "{error}");
    }
    assert!(plan(with(json!({"port": 8080}))).is_ok());
}
