//! The header of a safetensors file, judged: what it promises lies in the file, once and without holes.
//!
//! Must not know: what the tensors are for. The weights themselves are not read.

use std::{fs::File, io::Read, path::Path};

use serde_json::{Map, Value};

/// Bytes of the header, fixed by the format.
const HEADER_BYTES: u64 = 100_000_000;

/// Numbers in all tensors of a file.
///
/// # Errors
/// What is wrong with it: `is cut short`.
///
/// Source: <https://huggingface.co/docs/safetensors>, format.
pub(super) fn parameters_of(path: &Path) -> Result<u64, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let size_bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let cut = |_| "is cut short".to_owned();
    let mut length = [0u8; 8];
    file.read_exact(&mut length).map_err(cut)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES {
        return Err("is no safetensors file".into());
    }
    let mut header = vec![0u8; length as usize];
    file.read_exact(&mut header).map_err(cut)?;
    let header: Map<String, Value> =
        serde_json::from_slice(&header).map_err(|error| format!("has a header that is no JSON: {error}"))?;
    let tensors = header.iter().filter(|(name, _)| *name != "__metadata__");
    let mut tensors = tensors.map(|(name, told)| Tensor::read(name, told)).collect::<Result<Vec<_>, _>>()?;
    tensors.sort_by_key(|tensor| (tensor.begin, tensor.end));
    let promised = length.saturating_add(8).saturating_add(end_of(&tensors)?);
    match promised == size_bytes {
        true => Ok(tensors.iter().fold(0, |count: u64, tensor| count.saturating_add(tensor.numbers))),
        false => Err(format!("has {size_bytes} bytes, its header promises {promised}")),
    }
}

/// What the header says of one tensor; its place counts from the end of the header.
struct Tensor<'a> {
    name: &'a str,
    numbers: u64,
    begin: u64,
    end: u64,
}

impl<'a> Tensor<'a> {
    fn read(name: &'a str, told: &Value) -> Result<Self, String> {
        let lacking = || format!("has a tensor `{name}` without shape or place");
        let shape = told["shape"].as_array().ok_or_else(lacking)?;
        let numbers = shape.iter().try_fold(1u64, |product, size| product.checked_mul(size.as_u64()?));
        let place = told["data_offsets"].as_array().map_or(&[][..], Vec::as_slice);
        let [begin, end] = place else { return Err(lacking()) };
        let (begin, end) = begin.as_u64().zip(end.as_u64()).ok_or_else(lacking)?;
        let numbers = numbers.ok_or_else(lacking)?;
        let size_bytes =
            end.checked_sub(begin).ok_or_else(|| format!("has a tensor `{name}` that ends before it begins"))?;
        let dtype = told["dtype"].as_str().unwrap_or_default();
        if let Some(bits) = bits_of(dtype)
            && u128::from(numbers) * u128::from(bits) != u128::from(size_bytes) * 8
        {
            return Err(format!(
                "has a tensor `{name}` of {size_bytes} bytes, which are not {numbers} numbers of type {dtype}"
            ));
        }
        Ok(Self { name, numbers, begin, end })
    }
}

/// Where the last of them ends, each beginning where the one before it ends.
fn end_of(tensors: &[Tensor]) -> Result<u64, String> {
    tensors.iter().try_fold(0, |end, tensor| match tensor.begin == end {
        true => Ok(tensor.end),
        false => {
            let Tensor { name, begin, .. } = tensor;
            Err(format!("has a tensor `{name}` that begins at byte {begin}; what is before it ends at {end}"))
        }
    })
}

/// Bits of one number; none of a type that is not known here.
fn bits_of(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(header: Value, data_bytes: usize) -> Result<u64, String> {
        let folder = tempfile::tempdir().unwrap();
        let (path, header) = (folder.path().join("a.safetensors"), header.to_string());
        let length = (header.len() as u64).to_le_bytes().to_vec();
        std::fs::write(&path, [length, header.into_bytes(), vec![0; data_bytes]].concat()).unwrap();
        parameters_of(&path)
    }

    fn tensor(dtype: &str, shape: &[u64], begin: u64, end: u64) -> Value {
        json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]})
    }

    #[test]
    fn tensors_that_fill_the_file_are_counted_in_whatever_order_and_of_whatever_type() {
        let (first, second) = (tensor("BOOL", &[3], 0, 3), tensor("F32", &[2, 2], 3, 19));
        assert_eq!(judge(json!({"b": second, "a": first, "__metadata__": {"format": "pt"}}), 19), Ok(7));
        for (dtype, size_bytes) in [
            ("F4", 4),
            ("F6_E3M2", 6),
            ("F8_E4M3", 8),
            ("BF16", 16),
            ("U16", 16),
            ("U32", 32),
            ("F64", 64),
            ("C64", 64),
        ] {
            assert_eq!(judge(json!({"a": tensor(dtype, &[8], 0, size_bytes)}), size_bytes as usize), Ok(8), "{dtype}");
        }
        assert_eq!(judge(json!({"a": tensor("F2_NEW", &[8], 0, 2)}), 2), Ok(8), "a type of the future has any size");
        assert_eq!(judge(json!({"a": tensor("F32", &[], 0, 4), "none": tensor("F32", &[0, 4], 0, 0)}), 4), Ok(1));
        assert_eq!(judge(json!({}), 0), Ok(0));
    }

    #[test]
    fn a_header_that_cannot_be_true_is_refused_with_the_tensor() {
        for (header, data_bytes, why) in [
            (json!({"a": tensor("F32", &[1], 8, 4)}), 4, "`a` that ends before it begins"),
            (json!({"a": tensor("F32", &[2], 0, 4)}), 4, "`a` of 4 bytes, which are not 2 numbers of type F32"),
            (json!({"a": tensor("BF16", &[u64::MAX], 0, 4)}), 4, "`a` of 4 bytes"),
            (json!({"a": tensor("F32", &[1], 0, 4), "b": tensor("F32", &[1], 8, 12)}), 12, "`b` that begins at byte 8"),
            (json!({"a": tensor("F32", &[2], 0, 8), "b": tensor("F32", &[1], 4, 8)}), 8, "`b` that begins at byte 4"),
            (json!({"a": tensor("F32", &[1], 4, 8)}), 8, "`a` that begins at byte 4"),
            (json!({"a": tensor("F32", &[1], 0, 4)}), 5, "its header promises"),
            (json!({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}), 4, "`a` without shape or place"),
            (json!({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}), 0, "`a` without shape or place"),
        ] {
            let found = judge(header.clone(), data_bytes).unwrap_err();
            assert!(found.contains(why), "{header}: {found}");
        }
    }
}
