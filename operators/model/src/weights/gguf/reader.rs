//! Reads GGUF v3 through a memory map; every count and length is checked against the file before it is trusted.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};

use super::{ALIGNMENT, MAGIC, VERSION, Value};
use crate::{ModelError, Result, quantization::BlockType};

/// Most metadata entries of a file; real ones have tens.
const MAX_ENTRIES: u64 = 1 << 16;
/// Most tensors of a file; the largest models have thousands.
const MAX_TENSORS: u64 = 1 << 20;
/// Most dimensions of a tensor, fixed by the format.
const MAX_DIMENSIONS: u32 = 4;
/// Longest tensor name in bytes, fixed by the reference implementation.
const MAX_NAME: usize = 63;

/// Where a tensor lies in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    /// Slowest first, as in Hugging Face files: `[rows, columns]`.
    pub shape: Vec<usize>,
    pub block_type: BlockType,
    start: usize,
    size_bytes: usize,
}

/// An open GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    map: memmap2::Mmap,
    metadata: HashMap<String, Value>,
    tensors: Vec<TensorInfo>,
}

impl GgufFile {
    /// Opens a file and reads its header; tensors stay on disk.
    ///
    /// # Errors
    /// [`ModelError::Truncated`] if the file ends early, [`ModelError::Malformed`] if it contradicts itself,
    /// [`ModelError::Unsupported`] for another version or an unknown tensor type.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(ModelError::io("opening", path))?;
        // SAFETY: the file is an input that nobody writes while it is read; a map of it is only read.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(ModelError::io("mapping", path))?;
        let mut cursor = Cursor { path, bytes: &map, at: 0 };
        if cursor.take(4)? != MAGIC {
            return Err(ModelError::malformed(path, "it does not start with `GGUF`"));
        }
        let version = cursor.u32()?;
        if version != VERSION {
            return Err(cursor.unsupported("GGUF version", version.to_string(), VERSION.to_string()));
        }
        let tensors = cursor.count("tensors", MAX_TENSORS)?;
        let entries = cursor.count("metadata entries", MAX_ENTRIES)?;
        let metadata = read_metadata(&mut cursor, entries)?;
        let tensors = read_tensors(&mut cursor, tensors, &metadata)?;
        Ok(Self { path: path.to_owned(), metadata, tensors, map })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
    pub fn find(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }
    /// The text under a key, if it is there and a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.find(key)?.as_text()
    }
    /// The whole number under a key.
    ///
    /// # Errors
    /// [`ModelError::Malformed`] if it is absent or something else.
    pub fn integer(&self, key: &str) -> Result<u64> {
        self.find(key)
            .and_then(Value::as_u64)
            .ok_or_else(|| ModelError::malformed(&self.path, format!("it has no whole number `{key}`")))
    }
    /// In the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }
    /// The bytes of one tensor, as they lie in the file.
    pub fn bytes(&self, info: &TensorInfo) -> &[u8] {
        &self.map[info.start..info.start + info.size_bytes]
    }
    /// One tensor, unpacked to f32 on the CPU.
    pub fn tensor(&self, info: &TensorInfo) -> Result<Tensor> {
        info.block_type.unpack(self.bytes(info), &info.shape, &Device::Cpu)
    }
}

fn read_metadata(cursor: &mut Cursor, entries: u64) -> Result<HashMap<String, Value>> {
    let mut metadata = HashMap::new();
    for _ in 0..entries {
        let key = cursor.text()?;
        let kind = cursor.u32()?;
        let value = cursor.value(kind, true)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(cursor.malformed(format!("key `{key}` occurs twice")));
        }
    }
    Ok(metadata)
}

fn read_tensors(cursor: &mut Cursor, count: u64, metadata: &HashMap<String, Value>) -> Result<Vec<TensorInfo>> {
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(value) => value
            .as_u64()
            .filter(|value| value.is_power_of_two() && *value <= 1 << 20)
            .ok_or_else(|| cursor.malformed("`general.alignment` is no power of two"))?,
    };
    let mut tensors = Vec::new();
    let mut names = std::collections::HashSet::new();
    let mut running: u64 = 0;
    for _ in 0..count {
        let (info, offset) = read_tensor_info(cursor)?;
        if !names.insert(info.name.clone()) {
            return Err(cursor.malformed(format!("tensor `{}` occurs twice", info.name)));
        }
        if offset != running {
            return Err(cursor.malformed(format!("tensor `{}` lies at {offset}, expected at {running}", info.name)));
        }
        running = (info.size_bytes as u64)
            .checked_next_multiple_of(alignment)
            .and_then(|size| running.checked_add(size))
            .ok_or_else(|| cursor.malformed("its tensors are larger than any file"))?;
        tensors.push((info, offset));
    }
    let data = (cursor.at as u64).next_multiple_of(alignment);
    let found = cursor.bytes.len() as u64;
    tensors
        .into_iter()
        .map(|(mut info, offset)| {
            let start = data.saturating_add(offset);
            let needed = start.saturating_add(info.size_bytes as u64);
            if needed > found {
                let whole = data.saturating_add(running);
                return Err(ModelError::Truncated {
                    path: cursor.path.to_owned(),
                    needed_bytes: whole,
                    found_bytes: found,
                });
            }
            info.start = start as usize;
            Ok(info)
        })
        .collect()
}

fn read_tensor_info(cursor: &mut Cursor) -> Result<(TensorInfo, u64)> {
    let name = cursor.text()?;
    if name.len() > MAX_NAME {
        return Err(cursor.malformed(format!("a tensor name has {} bytes, more than {MAX_NAME}", name.len())));
    }
    let dimensions = cursor.u32()?;
    if dimensions == 0 || dimensions > MAX_DIMENSIONS {
        return Err(cursor.malformed(format!("tensor `{name}` has {dimensions} dimensions")));
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        let size = cursor.u64()?;
        shape.push(usize::try_from(size).map_err(|_| cursor.malformed(format!("tensor `{name}` is {size} wide")))?);
    }
    shape.reverse();
    let type_id = cursor.u32()?;
    let block_type = BlockType::from_id(type_id)
        .ok_or_else(|| cursor.unsupported("tensor type", type_id.to_string(), BlockType::known()))?;
    let offset = cursor.u64()?;
    let size_bytes = block_type
        .size_bytes(&shape)
        .ok_or_else(|| cursor.malformed(format!("tensor `{name}` {shape:?} is not whole blocks of {block_type}")))?;
    Ok((TensorInfo { name, shape, block_type, start: 0, size_bytes }, offset))
}

/// Reads little-endian values; never past the end.
struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, size: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(size).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| ModelError::Truncated {
            path: self.path.to_owned(),
            needed_bytes: (self.at as u64).saturating_add(size as u64),
            found_bytes: self.bytes.len() as u64,
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take gives as many bytes as asked"))
    }
    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    fn count(&mut self, what: &str, most: u64) -> Result<u64> {
        let count = self.u64()?;
        if count > most {
            return Err(self.malformed(format!("it claims {count} {what}, more than {most}")));
        }
        Ok(count)
    }
    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        let bytes = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed("a text is not UTF-8"))
    }
    fn value(&mut self, kind: u32, list_allowed: bool) -> Result<Value> {
        Ok(match kind {
            0 => Value::U8(self.array::<1>()?[0]),
            1 => Value::I8(i8::from_le_bytes(self.array()?)),
            2 => Value::U16(u16::from_le_bytes(self.array()?)),
            3 => Value::I16(i16::from_le_bytes(self.array()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.array()?)),
            6 => Value::F32(f32::from_le_bytes(self.array()?)),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 if list_allowed => return self.list(),
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.array()?)),
            12 => Value::F64(f64::from_le_bytes(self.array()?)),
            _ => return Err(self.malformed(format!("metadata type {kind} is unknown here"))),
        })
    }
    fn list(&mut self) -> Result<Value> {
        let kind = self.u32()?;
        let count = self.u64()?;
        let left = (self.bytes.len() - self.at) as u64; // every item takes at least one byte
        if count > left {
            let needed_bytes = (self.at as u64).saturating_add(count);
            return Err(ModelError::Truncated {
                path: self.path.to_owned(),
                needed_bytes,
                found_bytes: self.bytes.len() as u64,
            });
        }
        let items = (0..count).map(|_| self.value(kind, false)).collect::<Result<_>>()?;
        Ok(Value::List(kind, items))
    }
    fn malformed(&self, reason: impl Into<String>) -> ModelError {
        ModelError::malformed(self.path, reason)
    }
    fn unsupported(&self, what: &'static str, found: String, known: String) -> ModelError {
        ModelError::Unsupported { path: self.path.to_owned(), what, found, known }
    }
}
