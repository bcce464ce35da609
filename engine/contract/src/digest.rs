//! BLAKE3 digests: the identity of every file, artifact and key.

use std::{
    fmt,
    fs::File,
    io::{self, Seek},
    path::Path,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod tree;

/// A BLAKE3 digest of 32 bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Digest and length in bytes of a file, read and hashed on all cores.
    pub fn of_file(path: &Path) -> io::Result<(Self, u64)> {
        Self::of_open(&File::open(path)?)
    }

    /// The same of an open one, from its start. A file that shrinks meanwhile is no fault: what it has left counts.
    pub fn of_open(file: &File) -> io::Result<(Self, u64)> {
        let meta = file.metadata()?;
        if meta.is_file() && meta.len() > 0 {
            match tree::root(file, meta.len()) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                digest => return Ok((Self(*digest?.as_bytes()), meta.len())),
            }
        }
        let mut hasher = blake3::Hasher::new();
        let mut file = file;
        file.rewind()?;
        hasher.update_reader(file)?;
        Ok((Self(*hasher.finalize().as_bytes()), hasher.count()))
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Digest of a value's canonical JSON (object keys sorted).
    pub fn of_json(value: &serde_json::Value) -> Self {
        Self::of(canonical(value).as_bytes())
    }

    /// All 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        blake3::Hash::from(self.0).to_hex().to_string()
    }

    /// The first eight digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..8].to_owned()
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Feeds parts of unequal length without ambiguity: each is preceded by its length.
#[derive(Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// JSON with sorted object keys and no white space, so that equal values have equal bytes.
pub(crate) fn canonical(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            let inner: Vec<String> = entries
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::String(key.clone()), canonical(value)))
                .collect();
            format!("{{{}}}", inner.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for Digest {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| format!("`{text}` is no digest of 64 hexadecimal digits"))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_equal_digests_whatever_the_order_of_their_keys() {
        let a = serde_json::json!({"b": 1, "a": [1, {"y": 2, "x": "é"}]});
        let b = serde_json::json!({"a": [1, {"x": "é", "y": 2}], "b": 1});
        assert_eq!(Digest::of_json(&a), Digest::of_json(&b));
        assert_ne!(Digest::of_json(&a), Digest::of_json(&serde_json::json!({"a": 1})));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let digest = |parts: &[&str]| {
            let mut hasher = Hasher::new();
            for part in parts {
                hasher.part(part.as_bytes());
            }
            hasher.finish()
        };
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes_whatever_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let leaf = tree::LEAF_BYTES as usize;
        for length in [0, 1, 1024, leaf - 1, leaf, leaf + 1, 3 * leaf, 5 * leaf + 1025] {
            let bytes: Vec<u8> = (0..length).map(|at| (at / 7 % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(Digest::of_file(&path).unwrap(), (Digest::of(&bytes), length as u64), "{length} bytes");
        }
        let (digest, size_bytes) = Digest::of_file(Path::new("/proc/self/cmdline")).unwrap();
        assert!(size_bytes > 0 && digest != Digest::of(b""), "a file that does not say its length is read to its end");
    }

    #[test]
    fn a_digest_survives_text() {
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!("zz".parse::<Digest>().is_err());
    }
}
