//! Keeps an operator's service up in a worker: what `serve`, `chat` and `run --serve` use.

use std::{net::SocketAddr, path::PathBuf};

use llmflow_contract::{Failure, Known, KnownInput, Lease, Registry, Work};
use serde_json::Value;

use super::{
    Cancel,
    executor::{Executor, Workers},
    message::{Assignment, FromWorker},
    pool::{Pool, Report},
    secret::{Secrets, Withheld},
};
use crate::{device, home::Home, lineage::Lineage, plan::Read, store::Store};

/// Serves the artifact at `address` until cancelled; `ready` learns where.
///
/// # Errors
/// `serve/kind` if no operator serves this kind; whatever the service fails with.
pub async fn serve(
    address: &str,
    params: Value,
    home: Option<PathBuf>,
    registry: &Registry,
    ready: impl FnOnce(SocketAddr),
    cancel: Cancel,
) -> Result<(), Failure> {
    let home = Home::open(home.as_deref(), std::path::Path::new("."))?;
    let lineage = Lineage::open(&home).await?;
    let address = lineage.address(address, || Store::all_of(&home)).await?;
    let (run, stage, port, digest) = lineage.resolve(&address).await?;
    let store = lineage.store_of(&run, &home).await?;
    let manifest = store.manifest(&digest).await?;
    let served = registry.serving(&manifest.kind).ok_or_else(|| {
        Failure::input(
            "serve/kind",
            format!("`{stage}.{port}` is of kind {}, which nothing here serves", manifest.kind),
        )
        .help("name a stage that gives a model or a gguf: llmflow show @")
    })?;
    let limits = device::limits();
    let base = std::env::current_dir().map_err(|error| Failure::io("opening", ".", &error))?;
    let input = KnownInput {
        stage: stage.clone(),
        label: None,
        kind: manifest.kind.clone(),
        facts: manifest.facts,
        digest: Some(digest),
    };
    let known = Known {
        inputs: [(served.port.clone(), vec![input])].into(),
        machine: super::machine_of(&limits),
        base: base.clone(),
        locks: Default::default(),
    };
    let (params, _) = served.entry.plan(params, &known)?;
    let names = served.entry.secrets(&params);
    let withheld = Withheld::new(registry, &names);
    withheld.hide();
    let mut pool = Pool::new(Executor::new(Workers::Processes, limits.cores, withheld)?);
    let secrets = Secrets::read(&names)?;
    let assignment = Assignment {
        stage,
        attempt: 1,
        operator: served.entry.name.to_owned(),
        version: served.entry.version,
        params,
        inputs: vec![(served.port, vec![Read { digest, label: None }])],
        seed: 0,
        lease: Lease { cores: limits.cores, memory_bytes: limits.memory_bytes, gpus: Vec::new(), gpu_memory_bytes: 0 },
        gpus: String::new(),
        key: digest,
        components: Vec::new(),
        amount: Work::Unknown,
        kin: None,
        store: store.url(),
        work: home.work(),
        base,
        marks_eval: false,
        replaces: false,
        is_afresh: false,
        anew: None,
        sources: Vec::new(),
        secrets,
        is_foreign: false,
        is_offline: false,
        serve: true,
    };
    let worker = pool.assign(assignment, "", &[]).await?;
    let mut ready = Some(ready);
    loop {
        let report = tokio::select! {
            (_, report) = pool.next() => report,
            () = cancel.requested() => {
                pool.end(worker).await;
                return Ok(());
            }
        };
        match report {
            Report::Said(FromWorker::Serving(address)) => {
                if let Some(ready) = ready.take() {
                    ready(address);
                }
            }
            Report::Said(FromWorker::Failed(failure)) => return Err(failure),
            Report::Gone => return Err(pool.autopsy(worker).await),
            _ => {}
        }
    }
}
