//! Columns as our own types.

use llmflow_contract::{Digest, Kind, Port, StageId};
use serde::de::DeserializeOwned;
use sqlx::{Row, sqlite::SqliteRow};

use super::*;

pub(super) fn text(row: &SqliteRow, name: &str) -> Result<String, Failure> {
    row.try_get(name).map_err(failed)
}

pub(super) fn count(row: &SqliteRow, name: &str) -> Result<u32, Failure> {
    row.try_get::<i64, _>(name).map(|count| count as u32).map_err(failed)
}

pub(super) fn stage_id(row: &SqliteRow, name: &str) -> Result<StageId, Failure> {
    text(row, name).map(StageId::new)
}

pub(super) fn port(row: &SqliteRow, name: &str) -> Result<Port, Failure> {
    text(row, name).map(Port::new)
}

pub(super) fn kind(row: &SqliteRow) -> Result<Kind, Failure> {
    text(row, "kind").map(|text| Kind::new(&text))
}

pub(super) fn digest(row: &SqliteRow, name: &str) -> Result<Option<Digest>, Failure> {
    let text: Option<String> = row.try_get(name).map_err(failed)?;
    text.map(|text| text.parse().map_err(unreadable)).transpose()
}

/// A column of JSON; nothing where it is NULL.
pub(super) fn json<T: DeserializeOwned>(row: &SqliteRow, name: &str) -> Result<Option<T>, Failure> {
    let text: Option<String> = row.try_get(name).map_err(failed)?;
    text.map(|text| serde_json::from_str(&text).map_err(unreadable)).transpose()
}
