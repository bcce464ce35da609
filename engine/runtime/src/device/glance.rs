//! GPUs at a glance: what the kernel's part of NVIDIA's driver lists. Names alone, but at once: the driver itself takes a
//! third of a second to wake up.

use std::{fs, path::Path};

use crate::event::Gpu;

/// Where the kernel has a folder a GPU, under its address on the bus.
const LISTED: &str = "/proc/driver/nvidia/gpus";

/// What this process may see; None where only the driver can tell.
pub(super) fn gpus(visible: Option<&str>) -> Option<Vec<Gpu>> {
    let folders = fs::read_dir(LISTED).ok()?;
    let mut texts = Vec::new();
    for folder in folders {
        texts.push(fs::read_to_string(folder.ok()?.path().join("information")).ok()?);
    }
    let is_there = |minor: &str| Path::new("/dev").join(format!("nvidia{minor}")).exists();
    seen(&texts, visible, is_there)
}

/// `is_there` asks for the device file of a minor number: a container has those of its own GPUs alone, and the list of all.
fn seen(texts: &[String], visible: Option<&str>, is_there: impl Fn(&str) -> bool) -> Option<Vec<Gpu>> {
    let mut names = Vec::new();
    for text in texts {
        if is_there(value(text, "Device Minor")?) {
            names.push(value(text, "Model")?);
        }
    }
    let is_one_kind = names.iter().all(|name| *name == names[0]);
    let ordinal = |text: &str| text.trim().parse::<usize>().ok().filter(|ordinal| *ordinal < names.len());
    let count = match visible {
        None => names.len(),
        Some("") => 0,
        // Which is which only the driver can tell, and so it is with slices of one.
        Some(list) if is_one_kind => list.split(',').map(ordinal).collect::<Option<Vec<_>>>()?.len(),
        Some(_) => return None,
    };
    Some(names.into_iter().take(count).map(|name| Gpu { name: name.to_owned(), ..Gpu::default() }).collect())
}

/// Of `Model: <tab> NVIDIA H100`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(model: &str, minor: u32) -> String {
        format!(
            "Model: \t\t {model}\nIRQ:   \t\t 35\nGPU UUID: \t GPU-92aed70d\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
        )
    }

    fn names(texts: &[String], visible: Option<&str>) -> Option<Vec<String>> {
        Some(seen(texts, visible, |minor| minor != "3")?.into_iter().map(|gpu| gpu.name).collect())
    }

    #[test]
    fn what_the_kernel_lists_and_this_process_may_see_is_named() {
        let two = [listed("NVIDIA H100", 0), listed("NVIDIA H100", 1), listed("NVIDIA A100", 3)];
        let name = || "NVIDIA H100".to_owned();
        assert_eq!(names(&two, None), Some(vec![name(), name()]), "the third is not this container's");
        assert_eq!(names(&two, Some("1")), Some(vec![name()]));
        assert_eq!(names(&two, Some("")), Some(Vec::new()));
        assert_eq!(names(&[], None), Some(Vec::new()));
    }

    #[test]
    fn what_the_kernel_cannot_know_is_left_to_the_driver() {
        let two = [listed("NVIDIA H100", 0), listed("NVIDIA T4", 1)];
        assert_eq!(names(&two, Some("1")), None, "which of them is 1");
        for visible in ["GPU-92aed70d", "MIG-5c1a", "-1", "2"] {
            assert_eq!(names(&two[..1], Some(visible)), None, "{visible}");
        }
        assert_eq!(names(&["Model: NVIDIA H100\n".to_owned()], None), None);
    }
}
