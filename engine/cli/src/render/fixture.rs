//! Plans to draw, for tests.

use llmflow_contract::StageId;
use llmflow_runtime::plan::{StageView, Will};

/// A stage that waits, of which nothing else is known.
pub fn view(name: &str, needs: &[&str]) -> StageView {
    StageView {
        stage: StageId::from(name),
        operator: "a.b".into(),
        version: 1,
        needs: needs.iter().map(|need| StageId::from(*need)).collect(),
        will: Will::Waits { on: Vec::new(), because: Vec::new() },
        seconds: None,
        memory_bytes: 0,
        gpus: 0,
        is_foreign: false,
        disk_bytes: 0,
    }
}
