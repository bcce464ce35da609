//! Answers that took time or money: kept by the digest of their question, checked when they come back.

use llmflow_contract::{Digest, Failure, Hasher};

use super::Store;

/// Bytes of a digest as text, before the answer.
const SEAL_BYTES: usize = 64;

impl Store {
    /// The answer to a question, if it is there and whole.
    pub async fn recall(&self, question: &Digest) -> Result<Option<Vec<u8>>, Failure> {
        let Some(bytes) = self.backend.get(&memo_path(question)).await? else { return Ok(None) };
        self.disk().inspect(|disk| disk.touch(&memo_path(question))); // gc may be told to delete what nothing asks for
        Ok(answer(question, &bytes).map(<[u8]>::to_vec))
    }

    /// Keeps an answer, over a damaged one too; durable on return.
    pub async fn remember(&self, question: &Digest, answer: &[u8]) -> Result<(), Failure> {
        let bytes = [seal(question, answer).as_bytes(), answer].concat();
        self.backend.put(&memo_path(question), bytes).await
    }
}

/// The answer in an object, if that is whole.
pub(super) fn answer<'a>(question: &Digest, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (sealed, answer) = bytes.split_at_checked(SEAL_BYTES)?;
    (*sealed == *seal(question, answer).as_bytes()).then_some(answer)
}

/// Binds an answer to its question, so that neither damage nor a swap goes unseen.
fn seal(question: &Digest, answer: &[u8]) -> String {
    Hasher::new().part(question.bytes()).part(answer).finish().hex()
}

fn memo_path(question: &Digest) -> String {
    let hex = question.hex();
    format!("memo/{}/{hex}", &hex[..2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_comes_back_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        for store in [Store::open_local(folder.path()).unwrap(), Store::open("memory://memo").unwrap()] {
            let (question, other) = (Digest::of(b"q"), Digest::of(b"r"));
            assert_eq!(store.recall(&question).await.unwrap(), None);
            store.remember(&question, b"paid").await.unwrap();
            store.remember(&other, b"").await.unwrap();
            assert_eq!(store.recall(&question).await.unwrap().as_deref(), Some(&b"paid"[..]));
            assert_eq!(store.recall(&other).await.unwrap().as_deref(), Some(&b""[..]));
            let kept = store.backend.get(&memo_path(&question)).await.unwrap().unwrap().to_vec();
            store.backend.put(&memo_path(&other), kept.clone()).await.unwrap();
            assert_eq!(store.recall(&other).await.unwrap(), None, "another's answer");
            for damaged in [kept[..kept.len() - 1].to_vec(), [&kept[..], b"x"].concat(), Vec::new()] {
                store.backend.put(&memo_path(&question), damaged).await.unwrap();
                assert_eq!(store.recall(&question).await.unwrap(), None);
            }
            store.remember(&question, b"paid").await.unwrap();
            assert!(store.recall(&question).await.unwrap().is_some(), "paid again, it stands again");
        }
    }
}
