//! GPUs that are not there, to try schedules on.

use llmflow_contract::Failure;

use crate::{event::Gpu, pipeline::size_bytes};

/// More of them than any machine has.
const MOST: u32 = 1024;

/// Reads `4x80GiB`, or several such with commas between. Nothing: no GPU.
///
/// # Errors
/// Class `input`, with how it is written.
pub(super) fn gpus(text: &str) -> Result<Vec<Gpu>, Failure> {
    let mut gpus = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let read = item.split_once(['x', '×']).and_then(|(count, size)| {
            Some((count.trim().parse().ok().filter(|count| *count <= MOST)?, size_bytes(size).ok()?))
        });
        let (count, memory_bytes) = read.ok_or_else(|| {
            Failure::input(
                "devices/fake",
                format!("`{item}` in `{}` is no number of GPUs with their memory", super::FAKE),
            )
            .help(format!("write `{}=4x80GiB`, or `2x24GiB,1x80GiB`", super::FAKE))
        })?;
        for _ in 0..count {
            gpus.push(Gpu {
                id: gpus.len().to_string(),
                name: "fake GPU".into(),
                memory_bytes,
                free_bytes: memory_bytes,
                capability: None,
            });
        }
    }
    Ok(gpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fake_gpus_are_read_as_they_are_written() {
        let found = gpus("2x24GiB, 1x80G").unwrap();
        let sizes: Vec<u64> = found.iter().map(|gpu| gpu.memory_bytes >> 30).collect();
        assert_eq!((sizes, found[2].id.as_str(), gpus("").unwrap().len()), (vec![24, 24, 80], "2", 0));
        for wrong in ["four", "4x", "x80GiB", "-1x80GiB", "4x80", "9999x80GiB"] {
            assert_eq!(gpus(wrong).unwrap_err().code, "devices/fake", "{wrong}");
        }
    }
}
