//! `verify`

use llmflow_runtime::run::Error;

use super::{DONE, Setting, block_on, history::History};
use crate::{args::VerifyArgs, render::store as screen};

/// Exit code where damage is left.
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
            out.print(&screen::verified(&verified, out.width, out.paint));
        }
        // A run makes anew what is missing; what cannot be read, or was not set aside, is still in its way.
        Ok(if verified.damage.is_empty() || screen::is_mended(&verified) { DONE } else { DAMAGED })
    })
}
