//! safetensors files, single or sharded with an index.

use std::{collections::BTreeMap, fs::File, path::Path};

use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::Weights;
use crate::{ModelError, Result, quantization::BlockType};

/// Reads every tensor of a file as f32.
///
/// # Errors
/// [`ModelError::Malformed`] for a broken header or another type than f32, f16, bf16; [`ModelError::Io`].
pub(super) fn read(path: &Path, into: &mut Weights) -> Result<()> {
    let file = File::open(path).map_err(ModelError::io("opening", path))?;
    // SAFETY: the file is an input that nobody writes while it is read; a map of it is only read.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(ModelError::io("mapping", path))?;
    let tensors = SafeTensors::deserialize(&map).map_err(|error| ModelError::malformed(path, error.to_string()))?;
    for (name, view) in tensors.iter() {
        let block_type = match view.dtype() {
            Dtype::F32 => BlockType::F32,
            Dtype::F16 => BlockType::F16,
            Dtype::BF16 => BlockType::BF16,
            other => {
                return Err(ModelError::Unsupported {
                    path: path.to_owned(),
                    what: "tensor type",
                    found: format!("{other:?}"),
                    known: "F32, F16, BF16".into(),
                });
            }
        };
        let numbers = block_type.unpack_numbers(view.data())?;
        into.insert(name, Tensor::from_vec(numbers, view.shape(), &Device::Cpu)?);
    }
    Ok(())
}

/// Writes tensors to one file, in the order of safetensors (by size of type, then name).
///
/// # Errors
/// [`ModelError::Io`].
pub(super) fn write<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
    block_type: BlockType,
) -> Result<()> {
    let dtype = if block_type == BlockType::BF16 { Dtype::BF16 } else { Dtype::F32 };
    let packed = tensors
        .map(|(name, tensor)| {
            let numbers: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
            Ok((name.to_owned(), (tensor.dims().to_vec(), block_type.pack(&numbers)?)))
        })
        .collect::<Result<BTreeMap<_, _>>>()?;
    let failed = |error: safetensors::SafeTensorError| match error {
        safetensors::SafeTensorError::IoError(source) => ModelError::io("writing", path)(source),
        other => ModelError::malformed(path, other.to_string()),
    };
    let views = packed
        .iter()
        .map(|(name, (shape, bytes))| Ok((name, TensorView::new(dtype, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(failed)?;
    let format = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(format), path).map_err(failed)
}
