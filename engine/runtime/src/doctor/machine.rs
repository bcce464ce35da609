//! The machine: limits, GPUs, pip, ports, clock, open files.

use std::{net::TcpListener, process::Stdio, time::Duration};

use nix::sys::resource::{Resource, getrlimit};
use tokio::process::Command;

use super::{Finding, size};
use crate::{
    device::{self, Bounds},
    event::{Compute, now_ms},
    pipeline::{LONGEST_BACKOFF, MAX_FILE_BYTES},
};

/// A worker holds a few dozen files; so many serve them all.
const FILES: u64 = 1024;
/// 1 January 2025: no build is older.
const EARLIEST_MS: u64 = 1_735_689_600_000;
/// Starting Python from a cold disk takes a second or two.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn findings() -> Vec<Finding> {
    let bounds = device::bounds();
    let mut findings = vec![version(), limits(), processor(&bounds), memory(&bounds)];
    match device::inventory().await {
        Ok(compute) => findings.extend(gpus(&compute, kernel_driver().as_deref(), device::is_fake())),
        Err(failure) => findings.push(Finding::failed("gpu", &failure)),
    }
    findings.extend([pip().await, port(), clock(now_ms()), open_files(getrlimit(Resource::RLIMIT_NOFILE).ok())]);
    findings
}

fn version() -> Finding {
    let (version, system, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Finding::fine("version", format!("llmflow {version} on {system} {} {arch}", kernel.trim()))
}

fn limits() -> Finding {
    let backoff = LONGEST_BACKOFF.as_secs();
    Finding::fine(
        "limits",
        format!("a pipeline file has at most {}, a retry waits at most {backoff} s", size(MAX_FILE_BYTES)),
    )
}

fn processor(bounds: &Bounds) -> Finding {
    let by: Vec<String> = bounds.cores.iter().map(|bound| format!("{} {}", bound.by.name(), bound.limit)).collect();
    Finding::fine("cores", format!("{} ({})", bounds.cores(), by.join(", ")))
}

fn memory(bounds: &Bounds) -> Finding {
    let by = bounds.memory_bytes.iter().map(|bound| format!("{} {}", bound.by.name(), size(bound.limit)));
    Finding::fine("memory", format!("{} ({})", size(bounds.memory_bytes()), by.collect::<Vec<_>>().join(", ")))
}

/// The version of the driver's part in the kernel: `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  …`.
fn kernel_driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    driver_version(&text)
}

fn driver_version(text: &str) -> Option<String> {
    let is_version = |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

fn gpus(compute: &Compute, driver: Option<&str>, is_fake: bool) -> Vec<Finding> {
    let names: Vec<&str> = compute.gpus.iter().map(|gpu| gpu.name.as_str()).collect();
    match (compute.gpus.first(), driver) {
        (Some(first), _) if is_fake => {
            let found = format!("{}× fake, the first with {}", names.len(), size(first.memory_bytes));
            vec![Finding::note("gpu", found, "unset LLMFLOW_FAKE_GPUS to see the machine's own")]
        }
        (Some(_), driver) => {
            let driver = driver.map(|version| format!(" · driver {version}")).unwrap_or_default();
            let mut findings = vec![Finding::fine("gpu", format!("{}{driver}", names.join(", ")))];
            if compute.usable_gpus == 0 {
                let found =
                    "this build has no CUDA kernels: its operators compute on the CPU, programs on a GPU if they ask";
                findings.push(Finding::note("cuda", found, "see README: GPU"));
            }
            findings
        }
        (None, Some(version)) => vec![Finding::broken(
            "gpu",
            format!("the driver {version} is loaded, but gives this process no GPU"),
            "in a container, start it with its GPUs (`--gpus all`); else look at CUDA_VISIBLE_DEVICES and `nvidia-smi`",
        )],
        (None, None) => vec![Finding::fine("gpu", "no driver, no GPU: it computes on the CPU")],
    }
}

async fn pip() -> Finding {
    let own = std::env::var("LLMFLOW_PIP").ok();
    let candidates: Vec<Vec<&str>> = match &own {
        Some(pip) => vec![vec![pip]],
        None => vec![vec!["python3", "-m", "pip"], vec!["pip3"], vec!["pip"]],
    };
    for words in candidates {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--version").stdin(Stdio::null()).kill_on_drop(true);
        let Ok(Ok(output)) = tokio::time::timeout(PATIENCE, command.output()).await else { continue };
        if output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            let version: Vec<&str> = text.split_whitespace().take(2).collect();
            return Finding::fine("pip", format!("{} (`{}`)", version.join(" "), words.join(" ")));
        }
    }
    Finding::note(
        "pip",
        "not found: sources `pypi:…` cannot be fetched",
        "install pip, or name it: LLMFLOW_PIP=/path/to/pip",
    )
}

fn port() -> Finding {
    match TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()) {
        Ok(address) => Finding::fine("ports", format!("127.0.0.1 is free to serve on (tried {})", address.port())),
        Err(error) => Finding::broken(
            "ports",
            format!("no port of 127.0.0.1 can be opened: {error}"),
            "bring the loopback interface up (`ip link set lo up`), or lift the sandbox's rule against it",
        ),
    }
}

fn clock(now_ms: u64) -> Finding {
    if now_ms < EARLIEST_MS {
        return Finding::broken("clock", "it stands before 2025", "set it: `timedatectl set-ntp true`");
    }
    Finding::fine("clock", "set")
}

fn open_files(limit: Option<(u64, u64)>) -> Finding {
    match limit {
        Some((soft, hard)) if soft < FILES => {
            let fix = format!("ulimit -n {}", hard.min(4 * FILES));
            Finding::broken("open files", format!("at most {soft}; workers and store need up to {FILES}"), fix)
        }
        Some((soft, _)) => Finding::fine("open files", format!("at most {soft}")),
        None => Finding::fine("open files", "no limit known"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};
    use crate::event::Gpu;

    #[test]
    fn a_driver_that_gives_no_gpu_is_told_from_no_driver() {
        let none = Compute::default();
        assert_eq!(gpus(&none, None, false)[0].verdict, Verdict::Fine);
        assert_eq!(gpus(&none, Some("550.54.15"), false)[0].verdict, Verdict::Broken);
        let found = Compute { gpus: vec![Gpu { name: "NVIDIA H100".into(), ..Gpu::default() }], ..none };
        let rows = gpus(&found, Some("550.54.15"), false);
        assert_eq!(rows[0].found, "NVIDIA H100 · driver 550.54.15");
        assert_eq!((rows[1].subject, rows[1].verdict), ("cuda", Verdict::Note));
    }

    #[test]
    fn the_drivers_version_is_read_from_the_kernels_line() {
        let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n";
        assert_eq!(driver_version(text).as_deref(), Some("550.54.15"));
        assert_eq!(driver_version(""), None);
    }

    #[test]
    fn a_clock_from_before_the_build_and_few_files_are_broken() {
        assert_eq!(clock(0).verdict, Verdict::Broken);
        assert_eq!(clock(EARLIEST_MS).verdict, Verdict::Fine);
        let few = open_files(Some((256, 1 << 20)));
        assert_eq!((few.verdict, few.fix.as_deref()), (Verdict::Broken, Some("ulimit -n 4096")));
        assert_eq!(open_files(Some((1024, 4096))).verdict, Verdict::Fine);
    }
}
