//! HTTP clients. Their TLS is done by ring: aws-lc, the default of rustls, takes six times as long to build.

/// A client's builder, once its process has a TLS provider: building one without panics.
pub(crate) fn client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default(); // another's choice stands
    reqwest::Client::builder()
}
