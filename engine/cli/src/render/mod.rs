//! Everything people read. Functions here turn events and plans into lines; nothing else decides how a run looks.

pub mod error;
pub mod format;
pub mod header;
pub mod plain;
