//! Tries out what commits rest on.

use llmflow_contract::Failure;

use super::Store;
use crate::owner;

impl Store {
    /// Whether of two that create one object the second is refused. Leaves nothing.
    ///
    /// # Errors
    /// The store does not answer, or may not be written to.
    pub async fn is_create_only(&self) -> Result<bool, Failure> {
        let key = format!("tmp/{}probe", owner::prefix());
        self.backend.delete(&key).await?;
        let first = self.backend.create(&key, b"first".to_vec()).await?;
        let second = self.backend.create(&key, b"second".to_vec()).await?;
        self.backend.delete(&key).await?;
        Ok(first && !second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn local_and_memory_stores_create_once_and_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let local = Store::open_local(folder.path()).unwrap();
        assert!(local.is_create_only().await.unwrap() && local.is_create_only().await.unwrap());
        assert_eq!(folder.path().join("tmp").read_dir().unwrap().count(), 0);
        assert!(Store::open("memory://probe").unwrap().is_create_only().await.unwrap());
    }
}
