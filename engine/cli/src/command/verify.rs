//! `verify`

use llmflow_runtime::run::Error;

use super::{DONE, Setting, block_on, history::History};
use crate::{args::VerifyArgs, render::store as screen};

/// Exit code where something is missing, damaged or unreadable, and was not set aside.
const DAMAGED: u8 = 3;

/// Reads the store again and says what is wrong with it.
pub fn verify(args: VerifyArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open_with_store(setting.home.as_deref(), args.at.store.as_deref()).await?;
        let verified = history.store.verify(args.sample, args.repair).await?;
        if args.repair {
            history.write_missing_records().await?;
        }
        let out = setting.screen;
        if out.json {
            out.print_json(&verified);
        } else {
            out.print(&screen::verified(&verified, args.sample, out.width, out.paint));
        }
        Ok(if screen::is_mended(&verified) { DONE } else { DAMAGED })
    })
}
