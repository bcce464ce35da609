//! The HTTP surface.
//!
//! Owns: routes, limits on bodies, server-sent events. Must not know: how an answer is made.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderValue, Method, Uri},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    error::ApiError,
    protocol::{Ask, Finish, Head, Request, Style, Usage, parse},
    spec::Params,
    worker::{Job, Queue, Reply},
};
use llmflow_model::ChatMessage;

/// What every handler shares.
pub(super) struct Shared {
    queue: Queue,
    model_name: String,
    system: Option<String>,
    max_body_bytes: usize,
    /// Requests answered so far: part of an answer's id.
    count: AtomicU64,
    started: u64,
}

/// The routes of one server.
pub(super) fn router(params: &Params, queue: Queue) -> Router {
    let shared = Shared {
        queue,
        model_name: params.model_name.clone(),
        system: params.system.clone(),
        max_body_bytes: params.max_body_bytes as usize,
        count: AtomicU64::new(0),
        started: now(),
    };
    let chat = |state, body| answer(state, Style::Chat, body);
    let text = |state, body| answer(state, Style::Text, body);
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(text))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/health", get(|| async { Json(json!({"status": "ok"})) }))
        .fallback(|uri: Uri| async move { ApiError::no_route(uri.path()) })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            ApiError::no_method(method.as_str(), uri.path())
        })
        .with_state(Arc::new(shared))
}

async fn models(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [shared.model()]}))
}

async fn model(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    match uri.path().strip_prefix("/v1/models/") {
        Some(name) if name == shared.model_name => Json(shared.model()).into_response(),
        name => ApiError::no_model(name.unwrap_or_default(), &shared.model_name).into_response(),
    }
}

async fn answer(State(shared): State<Arc<Shared>>, style: Style, body: Body) -> Response {
    match shared.ask(style, body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

impl Shared {
    fn model(&self) -> Value {
        json!({"id": self.model_name, "object": "model", "created": self.started, "owned_by": "llmflow"})
    }

    async fn ask(&self, style: Style, body: Body) -> Result<Response, ApiError> {
        let limit = self.max_body_bytes;
        let body = to_bytes(body, limit).await.map_err(|_| ApiError::too_large(limit))?;
        let request = parse(style, &body)?;
        if let Some(asked) = request.model.as_deref().filter(|asked| *asked != self.model_name) {
            return Err(ApiError::no_model(&asked.chars().take(64).collect::<String>(), &self.model_name));
        }
        let (sender, mut replies) = unbounded_channel();
        let Request { ask, settings, stream, include_usage, ignored, .. } = request;
        self.queue.push(Job { ask: self.with_system(ask), settings, replies: sender })?;
        // The worker drops its end only after an end was sent, or when it is gone.
        match replies.recv().await {
            Some(Reply::Failed(error)) => return Err(error),
            None => return Err(ApiError::stopping()),
            Some(_) => {}
        }
        let head = Head { style, id: self.id(style), model: self.model_name.clone(), created: now() };
        let mut response = if stream {
            streamed(head, replies, include_usage)
        } else {
            let (text, finish, usage) = whole(&mut replies).await?;
            Json(head.answer(&text, finish, usage)).into_response()
        };
        if let Ok(names) = HeaderValue::from_str(&ignored.join(", "))
            && !ignored.is_empty()
        {
            response.headers_mut().insert("x-llmflow-ignored", names);
        }
        Ok(response)
    }

    fn with_system(&self, ask: Ask) -> Ask {
        match (ask, &self.system) {
            (Ask::Chat(mut messages), Some(system)) if messages.first().is_none_or(|first| first.role != "system") => {
                messages.insert(0, ChatMessage::new("system", system.as_str()));
                Ask::Chat(messages)
            }
            (ask, _) => ask,
        }
    }

    fn id(&self, style: Style) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let prefix = if style == Style::Chat { "chatcmpl" } else { "cmpl" };
        format!("{prefix}-{:x}-{count}", self.started)
    }
}

async fn whole(replies: &mut UnboundedReceiver<Reply>) -> Result<(String, Finish, Usage), ApiError> {
    let mut text = String::new();
    while let Some(reply) = replies.recv().await {
        match reply {
            Reply::Begun => {}
            Reply::Text(piece) => text.push_str(&piece),
            Reply::Done { finish, usage } => return Ok((text, finish, usage)),
            Reply::Failed(error) => return Err(error),
        }
    }
    Err(ApiError::stopping())
}

fn streamed(head: Head, replies: UnboundedReceiver<Reply>, include_usage: bool) -> Response {
    let opening: Vec<String> = head.opening().iter().map(Value::to_string).collect();
    let rest = stream::unfold(Some(replies), move |replies| {
        let head = head.clone();
        async move {
            let mut replies = replies?;
            let (events, goes_on) = match replies.recv().await {
                Some(Reply::Begun) => (Vec::new(), true),
                Some(Reply::Text(piece)) => (vec![head.piece(&piece).to_string()], true),
                Some(Reply::Done { finish, usage }) => {
                    let usage = include_usage.then(|| head.usage(usage).to_string());
                    let events = [head.ending(finish).to_string()].into_iter().chain(usage);
                    (events.chain(["[DONE]".to_owned()]).collect(), false)
                }
                Some(Reply::Failed(error)) => (vec![error.json().to_string()], false),
                None => (vec![ApiError::stopping().json().to_string()], false),
            };
            Some((events, goes_on.then_some(replies)))
        }
    });
    let events = stream::iter([opening]).chain(rest).flat_map(stream::iter);
    let events = events.map(|data| Ok::<_, Infallible>(Event::default().data(data)));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
