//! Ctrl-C. By default it ends the program at once with exit code 130: whatever a command has
//! on disk is valid at every moment, so there is nothing to save.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGINT;

use crate::failure::Outcome;

/// The shell's code for a program ended by Ctrl-C.
const EXIT_CODE: i32 = 130;

/// Makes Ctrl-C end the program with exit code 130.
pub(crate) fn exit_at_once() -> Outcome {
    signal_hook::flag::register_conditional_shutdown(
        SIGINT,
        EXIT_CODE,
        Arc::new(AtomicBool::new(true)),
    )?;
    Ok(())
}
