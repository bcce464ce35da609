//! Where a store lies: what its URL means.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use llmflow_contract::Failure;
use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    memory::InMemory,
};

use super::{backend::Backend, disk::Disk, objects::Objects};
use crate::tls;

/// After which a server that does not take a connection is given up.
const CONNECT: &str = "5 seconds";

/// Stores in memory, by name: one a name, as long as the process lives.
static MEMORY: LazyLock<Mutex<HashMap<String, Arc<dyn ObjectStore>>>> = LazyLock::new(Mutex::default);

/// A server that stumbles is asked again for half a minute; a stage's own `retry` covers longer absences.
fn retries() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };
    RetryConfig { backoff, max_retries: 5, retry_timeout: Duration::from_secs(30) }
}

/// The backend of a URL; nothing is asked of it yet.
///
/// Credentials and endpoint come from the variables that other tools read: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
/// `AWS_ALLOW_HTTP`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME` …
///
/// # Errors
/// Class `input` for a URL that names no store, or that holds credentials: it is recorded and shown.
pub(super) fn open(url: &str) -> Result<Backend, Failure> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| no_store(url))?;
    if scheme == "file" {
        return Disk::open(Path::new(rest)).map(Backend::Disk);
    }
    if scheme == "memory" {
        let mut stores = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
        let store = stores.entry(rest.to_owned()).or_insert_with(|| Arc::new(InMemory::new())).clone();
        return Ok(Backend::Objects(Objects::new(store, "", url.to_owned())));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(no_store(url));
    }
    if bucket.contains('@') {
        let message = "the URL of a store may not hold credentials: it is recorded with every run";
        return Err(Failure::input("store/url", message)
            .help(format!("put them into the environment, and write `{scheme}://BUCKET/PREFIX`")));
    }
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" => Arc::new(amazon(bucket).map_err(|error| unusable(url, &error))?),
        "gs" => Arc::new(google(bucket).map_err(|error| unusable(url, &error))?),
        "az" => Arc::new(azure(bucket).map_err(|error| unusable(url, &error))?),
        _ => return Err(no_store(url)),
    };
    Ok(Backend::Objects(Objects::new(store, prefix, url.to_owned())))
}

/// Makes `memory://NAME` this store, whatever it is.
#[cfg(test)]
pub(crate) fn put_memory(name: &str, store: Arc<dyn ObjectStore>) {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), store);
}

fn amazon(bucket: &str) -> object_store::Result<object_store::aws::AmazonS3> {
    tls::use_ring();
    AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), CONNECT)
        .with_retry(retries())
        .build()
}

fn google(bucket: &str) -> object_store::Result<object_store::gcp::GoogleCloudStorage> {
    tls::use_ring();
    GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_config(GoogleConfigKey::Client(ClientConfigKey::ConnectTimeout), CONNECT)
        .with_retry(retries())
        .build()
}

fn azure(container: &str) -> object_store::Result<object_store::azure::MicrosoftAzure> {
    tls::use_ring();
    MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_config(AzureConfigKey::Client(ClientConfigKey::ConnectTimeout), CONNECT)
        .with_retry(retries())
        .build()
}

fn no_store(url: &str) -> Failure {
    Failure::input("store/url", format!("`{url}` is no store"))
        .help("write `file:///FOLDER`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`")
}

fn unusable(url: &str, error: &object_store::Error) -> Failure {
    Failure::environment("store/config", format!("the store `{url}` cannot be used as the environment describes it"))
        .cause(error)
        .help("set its credentials and endpoint, such as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL")
}
