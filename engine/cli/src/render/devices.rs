//! The screen of `devices`: cores and memory with who limits them, and a row a GPU.

use llmflow_runtime::{
    device::{Bound, Bounds},
    event::{Compute, Gpu},
};
use serde::Serialize;

use super::{format, style::Paint, table::Table};

/// Cells of a memory bar.
const BAR: usize = 10;

/// What this machine offers.
#[derive(Clone, Debug, Serialize)]
pub struct Devices {
    #[serde(flatten)]
    pub compute: Compute,
    pub limits: Bounds,
    /// The GPUs are those of `LLMFLOW_FAKE_GPUS`.
    pub is_fake: bool,
}

/// The whole screen.
pub fn devices(devices: &Devices, width: usize, paint: Paint) -> String {
    let Devices { compute, limits, is_fake } = devices;
    let mut table = Table::new(["", "", ""]).wrap(2);
    let cores = limited(&limits.cores, u64::from(compute.cores), |limit| limit.to_string());
    table.row([paint.bold("cores"), compute.cores.to_string(), paint.dim(&cores)]);
    let memory = limited(&limits.memory_bytes, compute.memory_bytes, |limit| format::bytes(*limit));
    table.row([paint.bold("memory"), format::bytes(compute.memory_bytes), paint.dim(&memory)]);
    if compute.gpus.is_empty() {
        table.row([paint.bold("GPUs"), "none".into(), paint.dim("no driver gives one; it computes on the CPU")]);
        return table.lines(width).join("\n") + "\n";
    }
    let mut lines = table.lines(width);
    lines.push(String::new());
    lines.extend(gpus(compute, paint).lines(width));
    lines.push(String::new());
    lines.push(match (compute.usable_gpus, is_fake) {
        (_, true) => "these GPUs are not there: LLMFLOW_FAKE_GPUS makes them up, to try schedules on".to_owned(),
        (0, false) => {
            "for programs that ask, by `resources: {gpus: 1}`: this build has no CUDA kernels (README: GPU)".to_owned()
        }
        (_, false) => "a stage gets as many as it can use; two share one where both fit its memory".to_owned(),
    });
    lines.join("\n") + "\n"
}

fn gpus(compute: &Compute, paint: Paint) -> Table {
    let mut table = Table::new(["gpu", "name", "memory", "free", "capability", "used"]).right(&[3]);
    for (ordinal, gpu) in compute.gpus.iter().enumerate() {
        let is_usable = ordinal < compute.usable_gpus as usize;
        let used = match (is_usable, gpu.free_bytes) {
            (_, 0) => paint.yellow("no: another process keeps it to itself"),
            (true, _) => paint.green("yes"),
            (false, _) => paint.yellow("by programs alone"),
        };
        table.row([
            format::clean(&gpu.id),
            paint.bold(&format::clean(&gpu.name)),
            format!("{} {}", format::bar(taken(gpu), gpu.memory_bytes, BAR), format::bytes(gpu.memory_bytes)),
            format::bytes(gpu.free_bytes),
            gpu.capability.clone().unwrap_or_else(|| "–".to_owned()),
            used,
        ]);
    }
    table
}

fn taken(gpu: &Gpu) -> u64 {
    gpu.memory_bytes.saturating_sub(gpu.free_bytes)
}

/// Who limits it, the least first: `cgroup (limits) · machine 64`.
fn limited<T: Copy + Into<u64>>(bounds: &[Bound<T>], value: u64, show: impl Fn(&T) -> String) -> String {
    let mut by: Vec<&Bound<T>> = bounds.iter().collect();
    by.sort_by_key(|bound| bound.limit.into());
    let words = by.iter().map(|bound| match bound.limit.into() == value {
        true => format!("{} (limits)", bound.by.name()),
        false => format!("{} {}", bound.by.name(), show(&bound.limit)),
    });
    words.collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use llmflow_runtime::device::Source;

    use super::*;

    fn shown(gpus: Vec<Gpu>, usable_gpus: u32, is_fake: bool) -> Vec<String> {
        let limits = Bounds {
            cores: vec![Bound { by: Source::Machine, limit: 64 }, Bound { by: Source::Slurm, limit: 8 }],
            memory_bytes: vec![
                Bound { by: Source::Machine, limit: 256 << 30 },
                Bound { by: Source::Cgroup, limit: 64 << 30 },
            ],
        };
        let compute = Compute { cores: 8, memory_bytes: 64 << 30, gpus, usable_gpus, asked_gpus: 0 };
        let text = devices(&Devices { compute, limits, is_fake }, 100, Paint(false));
        text.lines().map(str::to_owned).collect()
    }

    fn gpu(id: &str, free: u64) -> Gpu {
        let capability = Some("9.0".to_owned());
        Gpu { id: id.into(), name: "NVIDIA H100".into(), memory_bytes: 80 << 30, free_bytes: free << 30, capability }
    }

    #[test]
    fn a_gpu_has_a_row_with_its_memory_and_whether_it_is_used() {
        assert_eq!(
            shown(vec![gpu("0", 79), gpu("1", 12), gpu("2", 0)], 0, false),
            [
                " cores   8       Slurm (limits) · machine 64",
                " memory  64 GiB  cgroup (limits) · machine 256 GiB",
                "",
                " gpu  name         memory               free  capability  used",
                " 0    NVIDIA H100  ░░░░░░░░░░ 80 GiB  79 GiB  9.0         by programs alone",
                " 1    NVIDIA H100  ████████░░ 80 GiB  12 GiB  9.0         by programs alone",
                " 2    NVIDIA H100  ██████████ 80 GiB     0 B  9.0         no: another process keeps it to itself",
                "",
                "for programs that ask, by `resources: {gpus: 1}`: this build has no CUDA kernels (README: GPU)",
            ]
        );
    }

    #[test]
    fn without_a_gpu_that_is_said_and_fake_ones_are_called_so() {
        assert_eq!(
            shown(Vec::new(), 0, false),
            [
                " cores   8       Slurm (limits) · machine 64",
                " memory  64 GiB  cgroup (limits) · machine 256 GiB",
                " GPUs    none    no driver gives one; it computes on the CPU",
            ]
        );
        let fake = Gpu { name: "fake GPU".into(), capability: None, ..gpu("0", 80) };
        assert_eq!(
            shown(vec![fake], 1, true),
            [
                " cores   8       Slurm (limits) · machine 64",
                " memory  64 GiB  cgroup (limits) · machine 256 GiB",
                "",
                " gpu  name      memory               free  capability  used",
                " 0    fake GPU  ░░░░░░░░░░ 80 GiB  80 GiB  –           yes",
                "",
                "these GPUs are not there: LLMFLOW_FAKE_GPUS makes them up, to try schedules on",
            ]
        );
    }
}
