//! Seals: a line of JSON with its own digest behind it, so that any change of a record, run or tag is found when it is read.

use llmflow_contract::{Digest, Failure};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

/// Two lines: the value, and `{"blake3":"…"}` of the first line.
pub(super) fn seal(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut text = serde_json::to_vec(value).map_err(|error| Failure::bug(format!("record: {error}")))?;
    let check = json!({ "blake3": Digest::of(&text) });
    text.extend(format!("\n{check}\n").into_bytes());
    Ok(text)
}

/// The value, if every byte is as it was sealed.
pub(super) fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let check = json!({ "blake3": Digest::of(line) });
    let is_whole = bytes[line.len()..] == *format!("\n{check}\n").as_bytes();
    is_whole.then(|| serde_json::from_slice(line).ok()).flatten()
}

/// The first sealed value of several, one behind the other, and what follows it.
pub(super) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let end = ends.nth(1)?;
    Some(bytes.split_at(end))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn any_change_of_a_sealed_value_is_found() {
        let value = json!({ "text": "two\nlines", "loss": 0.1 });
        let sealed = seal(&value).unwrap();
        assert_eq!(unseal::<Value>(&sealed), Some(value));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(unseal::<Value>(&flipped), None, "bit {bit} of byte {at}");
            }
            assert_eq!(unseal::<Value>(&sealed[..at]), None, "cut at {at}");
        }
        assert_eq!(unseal::<Value>(&[&sealed[..], b"\n"].concat()), None);
    }
}
