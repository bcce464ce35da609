//! Refusals in OpenAI's shape.

use axum::{
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// The field at fault.
    pub param: Option<&'static str>,
    pub code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }
    /// 400, with the field at fault.
    pub fn bad(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }
    /// 400 for a body that is no request at all.
    pub fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
    pub fn too_long(tokens: usize, context: usize) -> Self {
        let message = format!(
            "the prompt has {tokens} tokens, and the model's context of {context} leaves no room for an answer"
        );
        Self { code: Some("context_length_exceeded"), ..Self::bad("messages", message) }
    }
    pub fn no_model(asked: &str, served: &str) -> Self {
        let error =
            Self::new(StatusCode::NOT_FOUND, format!("the model `{asked}` does not exist; this server has `{served}`"));
        Self { param: Some("model"), code: Some("model_not_found"), ..error }
    }
    pub fn no_route(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is nothing at `{path}`"))
    }
    pub fn no_method(method: &str, path: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("`{path}` does not take {method}"))
    }
    pub fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the request is larger than {limit} bytes"))
    }
    pub fn busy() -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are waiting; try again soon");
        Self { code: Some("overloaded"), ..error }
    }
    pub fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping")
    }
    /// 500, without detail: what went wrong inside is for the server's own log.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the model could not answer")
    }

    pub fn json(&self) -> Value {
        let kind = if self.status.is_client_error() { "invalid_request_error" } else { "server_error" };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.json())).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
