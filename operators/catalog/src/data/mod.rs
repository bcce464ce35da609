//! Rows: read, clean, deduplicate, split.
