//! TLS is done by ring: aws-lc, the default of rustls, takes six times as long to build.

use std::sync::Once;

/// Makes ring the provider of every HTTPS client of this process; a client that is built before it panics.
pub fn use_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default(); // another's choice stands
    });
}
