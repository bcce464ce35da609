//! Requests: where the token goes, which redirects are followed, what is tried again.

use std::time::Duration;

use llmflow_contract::{Class, Context, Failure};
use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{HeaderMap, LOCATION, RANGE, RETRY_AFTER},
    redirect::Policy,
};

use super::{Hub, TICK};

const MAX_REDIRECTS: usize = 10;
const CONNECT: Duration = Duration::from_secs(15);
/// Tries that may fail in a row, counted from the last that brought something.
pub(super) const TRIES: u32 = 5;
/// A server that asks for a longer pause is left to the stage's own `retry`.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Nor does any server keep a stage waiting for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Runs what waits, until it ends or the stage is asked to stop.
pub(super) fn block_on<T>(ctx: &Context, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::environment("remote/threads", "no threads can start").cause(error))?;
    let stopped = async {
        while !ctx.cancelled() {
            tokio::time::sleep(TICK).await;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = stopped => Err(Failure::cancelled()),
            result = future => result,
        }
    })
}

/// A client for one piece of work.
pub(super) struct Requests<'a> {
    pub hub: &'a Hub,
    client: Client,
}

impl<'a> Requests<'a> {
    pub fn new(hub: &'a Hub) -> Result<Self, Failure> {
        let is_near = matches!(hub.endpoint.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let builder = || {
            let builder = crate::http::client()
                .redirect(Policy::none()) // followed here, so that the token stays at home
                .user_agent(concat!("llmflow/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT)
                .read_timeout(hub.stall);
            if is_near { builder.no_proxy() } else { builder }
        };
        let client = match builder().build() {
            // A machine without certificates can still ask a mirror that needs none.
            Err(_) if hub.endpoint.scheme() == "http" => builder().tls_certs_only([]).build(),
            built => built,
        };
        let client = client.map_err(|error| {
            let failure = Failure::environment("remote/client", "no web client can start");
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            failure.cause(cause).help("https needs this machine's certificates: install `ca-certificates`")
        })?;
        Ok(Self { hub, client })
    }

    /// An address at the hub; each part is escaped.
    pub fn url<'p>(&self, parts: impl IntoIterator<Item = &'p str>) -> Result<Url, Failure> {
        let mut url = self.hub.endpoint.clone();
        match url.path_segments_mut() {
            Ok(mut path) => path.pop_if_empty().extend(parts),
            Err(()) => return Err(Failure::environment("remote/endpoint", "HF_ENDPOINT can have no path")),
        };
        Ok(url)
    }

    /// Sends one request and follows where it leads. `from`: the first byte that is wanted.
    ///
    /// # Errors
    /// Class `transient` for whatever may pass; `remote/redirect`. An answer of any other status is none.
    pub async fn send(&self, method: Method, url: &Url, from: u64) -> Result<Answer, Failure> {
        let mut url = url.clone();
        for _ in 0..MAX_REDIRECTS {
            let is_hub = url.origin() == self.hub.endpoint.origin();
            let mut request = self.client.request(method.clone(), url.clone());
            if let Some(token) = self.hub.token.as_ref().filter(|_| is_hub) {
                request = request.bearer_auth(&token.0);
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request.send().await.map_err(|error| broken(&url, &error))?;
            let status = response.status();
            let to = response.headers().get(LOCATION).filter(|_| status.is_redirection());
            let Some(to) = to.and_then(|to| to.to_str().ok()) else {
                return self.checked(response, is_hub, &url);
            };
            // A large file's own facts stand beside the way to it.
            if method == Method::HEAD && response.headers().contains_key("x-linked-etag") {
                return Ok(Answer { response, is_hub });
            }
            let next = url.join(to).map_err(|_| Failure::environment("remote/redirect", "a redirect leads nowhere"))?;
            if !may_follow(&url, &next) {
                let (from, to) = (host(&url), host(&next));
                return Err(Failure::environment(
                    "remote/redirect",
                    format!("`{from}` sends us on to `{to}`, without https"),
                )
                .help("see whether HF_ENDPOINT and the proxy are the right ones"));
            }
            url = next;
        }
        Err(Failure::environment("remote/redirect", format!("`{}` redirects without end", host(&url))))
    }

    /// Whatever may pass by itself becomes a failure; the rest is the caller's.
    fn checked(&self, response: Response, is_hub: bool, url: &Url) -> Result<Answer, Failure> {
        let status = response.status();
        let passes = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            || status.is_server_error()
            // An address of a file store ends after minutes: the hub gives a new one.
            || (!is_hub && matches!(status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED));
        if !passes {
            return Ok(Answer { response, is_hub });
        }
        let after = retry_after(response.headers());
        let message = format!("`{}` answers {status}", host(url));
        Err(Failure::new(Class::Transient { after }, "remote/busy", message))
    }

    /// Tries again while that may help; `progress` says how far it has come, and anything new is a new chance.
    ///
    /// # Errors
    /// The last failure.
    pub async fn retrying<T>(
        &self,
        progress: impl Fn() -> u64,
        mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (mut tries, mut reached) = (0, progress());
        loop {
            let failure = match attempt().await {
                Err(failure) if matches!(failure.class, Class::Transient { .. }) => failure,
                ended => return ended,
            };
            if progress() > reached {
                (tries, reached) = (0, progress());
            }
            tries += 1;
            let after = match failure.class {
                Class::Transient { after } => after,
                _ => None,
            };
            let pause = after.unwrap_or(self.hub.backoff * 2u32.pow(tries - 1));
            if tries == TRIES || pause > LONGEST_PAUSE {
                return Err(failure.help("try again later; what was fetched so far is kept"));
            }
            tracing::info!("{failure}; trying again in {} ms", pause.as_millis());
            tokio::time::sleep(pause).await;
        }
    }
}

/// An answer, and whether the hub itself gave it rather than a store it led to.
pub(super) struct Answer {
    pub response: Response,
    pub is_hub: bool,
}

impl Answer {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The whole body, at most `limit` bytes.
    ///
    /// # Errors
    /// Class `transient` if it breaks off; `remote/too-large`.
    pub async fn body(mut self, limit: usize) -> Result<Vec<u8>, Failure> {
        let url = self.response.url().clone();
        let mut bytes = Vec::new();
        while let Some(chunk) = self.response.chunk().await.map_err(|error| broken(&url, &error))? {
            if bytes.len() + chunk.len() > limit {
                let message = format!("`{}` answers with more than {} MB", host(&url), limit >> 20);
                return Err(Failure::environment("remote/too-large", message));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// A connection that failed or broke. Its address may hold a signature, so only the host is said.
pub(super) fn broken(url: &Url, error: &reqwest::Error) -> Failure {
    let what = if error.is_connect() { "cannot be reached" } else { "broke off" };
    let mut failure =
        Failure::new(Class::Transient { after: None }, "remote/network", format!("`{}` {what}", host(url)));
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        (failure, cause) = (failure.cause(inner), inner.source());
    }
    failure
}

/// To https, or on the same host where nothing is lost by it.
fn may_follow(from: &Url, to: &Url) -> bool {
    to.scheme() == "https" || (to.scheme() == "http" && from.scheme() == "http" && from.host() == to.host())
}

pub(super) fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or("?");
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

/// How long the other side asks us to wait, an hour at most; dates are not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_keeps_us_waiting_for_more_than_an_hour() {
        let after = |text: &'static str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(after(" 30 "), Some(Duration::from_secs(30)));
        assert_eq!(after("31536000"), Some(LONGEST_WAIT));
        assert_eq!(after("18446744073709551615"), Some(LONGEST_WAIT));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
    }

    #[test]
    fn a_redirect_never_goes_from_https_to_http_and_not_to_another_host_in_the_open() {
        let may = |from: &str, to: &str| may_follow(&Url::parse(from).unwrap(), &Url::parse(to).unwrap());
        assert!(
            may("https://a/x", "https://b/x") && may("http://a/x", "https://b/x") && may("http://a:1/", "http://a:2/")
        );
        assert!(
            !may("https://a/x", "http://a/x") && !may("http://a/x", "http://b/x") && !may("https://a/x", "file:///x")
        );
    }
}
