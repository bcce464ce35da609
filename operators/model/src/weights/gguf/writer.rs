//! Writes GGUF v3: header first, then the tensors one by one, so that only one is in memory.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{ALIGNMENT, MAGIC, VERSION, Value};
use crate::{ModelError, Result, quantization::BlockType};

/// A tensor to be written: its GGUF name, shape (slowest first) and block type.
#[derive(Clone, Debug)]
pub struct TensorPlan {
    pub name: String,
    pub shape: Vec<usize>,
    pub block_type: BlockType,
}

/// A GGUF file in the making: tensors are to be given in the planned order.
#[derive(Debug)]
pub struct GgufWriter {
    path: PathBuf,
    file: BufWriter<File>,
    sizes: std::vec::IntoIter<u64>,
}

impl GgufWriter {
    /// Writes the header for these metadata and tensors.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] if a row is not whole blocks; [`ModelError::Io`].
    pub fn create(path: &Path, metadata: &[(String, Value)], tensors: &[TensorPlan]) -> Result<Self> {
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            put_text(&mut header, key);
            header.extend(value.type_id().to_le_bytes());
            put_value(&mut header, value);
        }
        let mut offset = 0u64;
        let mut sizes = Vec::with_capacity(tensors.len());
        for plan in tensors {
            let size = plan.block_type.size_bytes(&plan.shape).ok_or_else(|| {
                ModelError::Invalid(format!(
                    "`{}` {:?} is not whole blocks of {}",
                    plan.name, plan.shape, plan.block_type
                ))
            })? as u64;
            put_text(&mut header, &plan.name);
            header.extend((plan.shape.len() as u32).to_le_bytes());
            for size in plan.shape.iter().rev() {
                header.extend((*size as u64).to_le_bytes());
            }
            header.extend(plan.block_type.id().to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset += size.next_multiple_of(ALIGNMENT);
            sizes.push(size);
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
        let file = File::create(path).map_err(ModelError::io("creating", path))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&header).map_err(ModelError::io("writing", path))?;
        Ok(Self { path: path.to_owned(), file, sizes: sizes.into_iter() })
    }

    /// Writes the next tensor's blocks.
    pub fn tensor(&mut self, blocks: &[u8]) -> Result<()> {
        if self.sizes.next() != Some(blocks.len() as u64) {
            return Err(ModelError::Invalid(format!("a tensor of {} bytes was not planned here", blocks.len())));
        }
        let padding = blocks.len().next_multiple_of(ALIGNMENT as usize) - blocks.len();
        self.file.write_all(blocks).map_err(ModelError::io("writing", &self.path))?;
        self.file.write_all(&[0; ALIGNMENT as usize][..padding]).map_err(ModelError::io("writing", &self.path))
    }

    /// Ends the file; returns its size in bytes.
    pub fn finish(mut self) -> Result<u64> {
        if self.sizes.next().is_some() {
            return Err(ModelError::Invalid("a planned tensor was not written".into()));
        }
        self.file.flush().map_err(ModelError::io("writing", &self.path))?;
        let metadata = self.file.get_ref().metadata().map_err(ModelError::io("measuring", &self.path))?;
        Ok(metadata.len())
    }
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

fn put_value(to: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(value) => to.push(*value),
        Value::I8(value) => to.extend(value.to_le_bytes()),
        Value::U16(value) => to.extend(value.to_le_bytes()),
        Value::I16(value) => to.extend(value.to_le_bytes()),
        Value::U32(value) => to.extend(value.to_le_bytes()),
        Value::I32(value) => to.extend(value.to_le_bytes()),
        Value::F32(value) => to.extend(value.to_le_bytes()),
        Value::Bool(value) => to.push(u8::from(*value)),
        Value::Text(text) => put_text(to, text),
        Value::U64(value) => to.extend(value.to_le_bytes()),
        Value::I64(value) => to.extend(value.to_le_bytes()),
        Value::F64(value) => to.extend(value.to_le_bytes()),
        Value::List(kind, items) => {
            to.extend(kind.to_le_bytes());
            to.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| put_value(to, item));
        }
    }
}
