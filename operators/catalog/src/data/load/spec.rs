//! Params, ports and plan of `data.load`.

use llmflow_contract::{
    Context, Facts, Failure, Known, Locked, Made, Needs, Operator, Remote, Source, StagePlan, Use, Work, kinds, outputs,
};
use llmflow_dataset::RowKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{convert, files, records, remote_files::RemoteFiles};
use crate::remote::{self, Hub};

/// The shape of a row in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// As the first row looks.
    #[default]
    Auto,
    /// A document a file, or `text` a row.
    Text,
    /// `instruction`, `input`, `output`, also `system`: becomes a chat.
    Alpaca,
    /// OpenAI's `messages`, also `tools`: a chat.
    Messages,
    /// `conversations` of `{from, value}`, also `system` and `tools`: becomes a chat.
    Sharegpt,
    /// `prompt` and `completion` (or `response`): becomes a chat.
    PromptCompletion,
    /// `prompt` (or `question`), also `answer`.
    Prompt,
    /// `query`, `choices`, `gold`.
    Choice,
    /// `prompt`, `chosen`, `rejected`, as text or as turns.
    Preference,
}

/// What to do with a row that lacks something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// The stage fails and names file and line.
    #[default]
    Fail,
    /// The row is left out, and the trace says why.
    SetAside,
}

/// How a document becomes rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SplitText {
    /// One row a file.
    #[default]
    None,
    /// One row a paragraph: what stands between empty lines.
    Paragraphs,
    /// One row a Markdown section: a heading and what follows it.
    Headings,
}

/// What to read.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Params {
    /// A file or a pattern such as `docs/**/*.md`, relative to the pipeline file; with `source`, to the repository.
    #[schemars(extend("x-role" = "source"))]
    pub path: String,
    /// A dataset's repository, `hf:OWNER/NAME[@REVISION]`; without it, files of this machine.
    #[serde(default)]
    #[schemars(extend("x-role" = "source"))]
    pub source: Option<String>,
    /// The shape of a row.
    #[serde(default)]
    pub format: Format,
    /// What to do with a row that lacks something.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// How documents become rows.
    #[serde(default)]
    pub split: SplitText,
    /// What the rows may be used for: `eval` rows may never reach training.
    #[serde(default)]
    pub role: Use,
    /// The licence the source states, for the model card.
    #[serde(default, alias = "license")]
    #[schemars(extend("x-aliases" = ["license"]))]
    pub licence: Option<String>,
    /// Read no more rows than this.
    #[serde(default, alias = "limit")]
    #[schemars(range(min = 1), extend("x-aliases" = ["limit"], "x-limit" = true))]
    pub max_rows: Option<u64>,
    /// What the repository was found to hold: settled by `plan`, for `run`.
    #[serde(default)]
    #[schemars(skip)]
    pub locked: Option<Locked>,
}

impl Format {
    /// The kind that rows of this shape become; `auto` has none before a look at the file.
    pub(super) fn kind(self) -> Option<RowKind> {
        match self {
            Self::Auto => None,
            Self::Text => Some(RowKind::Text),
            Self::Alpaca | Self::Messages | Self::Sharegpt | Self::PromptCompletion => Some(RowKind::Chat),
            Self::Prompt => Some(RowKind::Prompt),
            Self::Choice => Some(RowKind::Choice),
            Self::Preference => Some(RowKind::Preference),
        }
    }
}

outputs! {
    pub struct Out {
        /// The rows, in order of file name and line.
        pub data: Made<kinds::AnyDataset>,
    }
}

/// `data.load`
pub struct Load;

impl Operator for Load {
    const NAME: &'static str = "data.load";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = ();
    type Outputs = Out;
    const CREDENTIALS: &'static [&'static str] = &[Hub::TOKEN];

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        if let Some(files) = RemoteFiles::of(params)? {
            return plan_remote(&files, params, known);
        }
        let files = files::find(&params.path, &known.base)?;
        if params.format == Format::Auto {
            params.format = detect(&files)?;
        }
        let kind = params.format.kind().expect("`auto` was settled");
        let facts = facts_of(params);
        let bytes: u64 = files.iter().map(|file| file.size_bytes).sum();
        let mut plan = StagePlan::derived::<Self>().output("data", kind.kind(), facts);
        for file in files {
            // A document's row names its file; other rows do not.
            let name = records::is_document(&file.name).then(|| file.name.clone());
            plan = plan.source(Source::File { param: "path".into(), path: file.path, name });
        }
        Ok(measured(plan, bytes))
    }

    fn remote(params: &Params) -> Result<Option<Remote>, Failure> {
        Ok(RemoteFiles::of(params)?.map(|files| files.remote()))
    }

    fn resolve(params: &Params, revision: Option<&str>, ctx: &Context) -> Result<Locked, Failure> {
        let files = RemoteFiles::of(params)?.ok_or_else(|| Failure::bug("only a repository is resolved"))?;
        Hub::from_env()?.resolve(&files.repository, &files.select, revision, ctx)
    }

    fn fetch(params: &Params, ctx: &Context) -> Result<(), Failure> {
        super::run::find(params, ctx, &Hub::from_env()?).map(|_| ())
    }

    fn run(params: Params, _: (), ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, ctx, &Hub::from_env()?)
    }
}

/// The plan of files that may not be here yet: their digests are known, their rows are not.
fn plan_remote(files: &RemoteFiles, params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
    let kind = params.format.kind().ok_or_else(|| {
        Failure::input("data/format", "rows that are not here yet have no shape to look at")
            .param("source")
            .help("say which it is: `format: messages` (or alpaca, sharegpt, preference, text …)")
    })?;
    params.locked = known.locked(&files.remote()).cloned();
    let chosen = params.locked.as_ref().map(|locked| files.files(locked)).transpose()?.unwrap_or_default();
    let bytes = chosen.values().map(|file| file.size_bytes).sum();
    let plan = StagePlan::derived::<Load>()
        .output("data", kind.kind(), facts_of(params))
        .source(Source::Pinned { param: "source".into(), pin: remote::pin(&chosen) });
    Ok(measured(plan, bytes))
}

/// Metrics, and needs by the size of the files.
fn measured(plan: StagePlan, bytes: u64) -> StagePlan {
    let needs = Needs {
        memory_bytes: (64 << 20) + bytes.min(1 << 30),
        disk_bytes: bytes,
        work: Work::Bytes(bytes),
        ..Needs::default()
    };
    plan.metric("rows", "rows loaded").metric("set_aside", "rows left out").needs(needs)
}

/// The facts that params alone decide.
pub(super) fn facts_of(params: &Params) -> Facts {
    Facts { used_for: Some(params.role), licences: params.licence.iter().cloned().collect(), ..Facts::default() }
}

/// The shape of the first readable row.
pub(super) fn detect(files: &[files::Found]) -> Result<Format, Failure> {
    for file in files {
        if records::is_document(&file.name) {
            return Ok(Format::Text);
        }
        for record in records::read(file, SplitText::None)?.take(20) {
            if let Ok(fields) = &record?.body {
                return convert::detect(fields).ok_or_else(|| {
                    let names: Vec<_> = fields.keys().map(String::as_str).collect();
                    Failure::input(
                        "data/format",
                        format!("`{}` has rows of {}: no known shape", file.name, names.join(", ")),
                    )
                    .help("say which it is: `format: alpaca`, or rename the fields")
                    .param("format")
                });
            }
        }
    }
    Err(Failure::input("data/empty", "no row could be read to learn the shape from").param("path"))
}
