//! `chat`: starts the operator's service and speaks HTTP with it.

use std::{
    io::{self, IsTerminal, Read},
    net::SocketAddr,
};

use llmflow_contract::Failure;
use llmflow_runtime::run::{self, Cancel, Error};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{DONE, Setting, block_on, serve};
use crate::{args::ChatArgs, interrupt::Interrupts, render::format};

/// Largest question from a pipe, and largest line of an answer, in bytes.
const MOST_BYTES: usize = 1 << 20;

/// Asks one question, or talks.
pub fn chat(args: ChatArgs, setting: &Setting) -> Result<u8, Error> {
    let question = match &args.question {
        Some(question) => Some(question.clone()),
        None if io::stdin().is_terminal() => None,
        None => Some(piped_question()?),
    };
    block_on(async {
        let cancel = Cancel::new();
        let _interrupts = Interrupts::watch(cancel.clone(), setting.screen, "")?;
        let (tell, told) = oneshot::channel();
        let ready = |at| _ = tell.send(at);
        setting.screen.say(&format!("starting {} …", format::clean(&args.address)));
        let home = setting.home.clone();
        let service = run::serve(&args.address, json!({}), home, setting.registry, ready, cancel.clone());
        let talk = async {
            let at = told.await.map_err(|_| Failure::bug("the service ended without a word"))?;
            // Of this machine: through no proxy, and with nobody's certificate.
            let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().map_err(broken)?;
            let talk = Talk { at, args: &args, setting, client };
            match &question {
                Some(question) => talk.once(question).await,
                None => talk.on().await,
            }
        };
        tokio::pin!(service);
        tokio::select! {
            // It does not end by itself: it failed, or it was asked to stop.
            served = &mut service => served.and(Err(Failure::cancelled()))?,
            talked = talk => {
                cancel.request();
                service.await?;
                talked?;
            }
        }
        Ok(DONE)
    })
}

fn piped_question() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin().lock().take(MOST_BYTES as u64).read_to_string(&mut text);
    read.map_err(|error| Failure::input("chat/input", "the question on standard input is no text").cause(error))?;
    if text.trim().is_empty() {
        return Err(
            Failure::input("chat/input", "there is no question").help("llmflow chat @/gguf \"What is LLMflow?\"")
        );
    }
    Ok(text.trim().to_owned())
}

/// A conversation with the service.
struct Talk<'a> {
    at: SocketAddr,
    args: &'a ChatArgs,
    setting: &'a Setting<'a>,
    client: reqwest::Client,
}

impl Talk<'_> {
    async fn once(&self, question: &str) -> Result<(), Failure> {
        let mut messages = self.opening();
        messages.push(json!({"role": "user", "content": question}));
        let screen = self.setting.screen;
        let mut last = String::new();
        let mut show = |piece: &str| {
            if !screen.json {
                screen.print_piece(piece);
            }
            last = piece.to_owned();
        };
        let answer = self.ask(&messages, &mut show).await?;
        if screen.json {
            screen.print_json(&json!({ "question": question, "answer": answer }));
        } else if !last.ends_with('\n') {
            screen.print_piece("\n");
        }
        Ok(())
    }

    /// Until the end of input.
    async fn on(&self) -> Result<(), Failure> {
        let screen = self.setting.screen;
        screen.say("ask away; an empty line or Ctrl-D ends it");
        let mut lines = typed_lines();
        let mut messages = self.opening();
        loop {
            screen.print_piece(&screen.paint.bold("> "));
            let Some(line) = lines.recv().await else { break };
            if line.trim().is_empty() {
                break;
            }
            messages.push(json!({"role": "user", "content": line.trim()}));
            let answer = self.ask(&messages, &mut |piece| screen.print_piece(piece)).await?;
            screen.print_piece("\n");
            messages.push(json!({"role": "assistant", "content": answer}));
        }
        Ok(())
    }

    fn opening(&self) -> Vec<Value> {
        self.args.system.iter().map(|text| json!({"role": "system", "content": text})).collect()
    }

    /// One answer, piece by piece; the whole of it at the end. No model is named: the service has one.
    async fn ask(&self, messages: &[Value], on_piece: &mut dyn FnMut(&str)) -> Result<String, Failure> {
        let mut body = json!({"messages": messages, "stream": true});
        if let Some(most) = self.args.max_tokens {
            body["max_tokens"] = most.into();
        }
        if let Some(temperature) = self.args.temperature {
            body["temperature"] = temperature.into();
        }
        let url = format!("{}/v1/chat/completions", serve::url(self.at));
        let mut response = self.client.post(url).json(&body).send().await.map_err(broken)?;
        if !response.status().is_success() {
            let status = response.status();
            let text = response.text().await.unwrap_or_default();
            return Err(refused(status.as_u16(), &text));
        }
        let (mut pieces, mut answer) = (Pieces::default(), String::new());
        while let Some(bytes) = response.chunk().await.map_err(broken)? {
            for piece in pieces.feed(&bytes)? {
                answer.push_str(&piece);
                on_piece(&format::clean_lines(&piece));
            }
        }
        Ok(answer)
    }
}

/// Lines of standard input, read by a thread that nobody waits for.
fn typed_lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Server-sent events, cut into the pieces of an answer.
#[derive(Default)]
struct Pieces {
    rest: Vec<u8>,
}

impl Pieces {
    /// # Errors
    /// What the service says went wrong in the middle of an answer; a line without end.
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>, Failure> {
        self.rest.extend_from_slice(bytes);
        let mut found = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some(data) = line.trim().strip_prefix("data:") else { continue };
            let Ok(value) = serde_json::from_str::<Value>(data.trim()) else { continue }; // [DONE]
            if let Some(message) = value["error"]["message"].as_str() {
                return Err(Failure::environment("chat/answer", format::clean(message)));
            }
            if let Some(text) = value["choices"][0]["delta"]["content"].as_str() {
                found.push(text.to_owned());
            }
        }
        if self.rest.len() > MOST_BYTES {
            return Err(Failure::bug("the service sent a line without end"));
        }
        Ok(found)
    }
}

fn broken(error: reqwest::Error) -> Failure {
    Failure::environment("chat/connection", "the service does not answer").cause(error)
}

/// What the service refused, in its own words.
fn refused(status: u16, text: &str) -> Failure {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let message =
        value["error"]["message"].as_str().map_or_else(|| format!("the service answered {status}"), format::clean);
    match status {
        400..500 => Failure::input("chat/refused", message),
        _ => Failure::environment("chat/refused", message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_pieced_together_however_the_bytes_are_cut() {
        let text = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n\
                    data: {\"choices\":[{\"delta\":{\"content\":\"Grüße\"}}]}\r\n\r\n: ping\n\n\
                    data: {\"choices\":[{\"delta\":{\"content\":\"!\"}}]}\n\ndata: [DONE]\n\n";
        for size in [1, 7, 1000] {
            let mut pieces = Pieces::default();
            let found: Vec<String> =
                text.as_bytes().chunks(size).flat_map(|bytes| pieces.feed(bytes).unwrap()).collect();
            assert_eq!(found.concat(), "Grüße!", "{size}");
        }
    }

    #[test]
    fn what_goes_wrong_in_the_middle_of_an_answer_is_said() {
        let failure =
            Pieces::default().feed(b"data: {\"error\": {\"message\": \"out of\\u001b memory\"}}\n").unwrap_err();
        assert_eq!(failure.message, "out of  memory");
        assert_eq!(refused(404, r#"{"error": {"message": "no model `x`"}}"#).message, "no model `x`");
        assert_eq!(refused(503, "busy").message, "the service answered 503");
    }
}
