//! Ctrl-C. By default it ends the program at once with exit code 130: whatever a command has
//! on disk is valid at every moment, so there is nothing to save. A chat asks for more patience:
//! there the first stops the answer, and only the second ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;

use crate::failure::Outcome;

/// The shell's code for a program ended by Ctrl-C.
pub(crate) const EXIT_CODE: u8 = 130;

/// What Ctrl-C does now.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    /// The next one ends the program.
    is_deadly: Arc<AtomicBool>,
    /// There was one since the last [`Interrupt::spare_one`].
    was_pressed: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over Ctrl-C, with the default behaviour.
    pub(crate) fn install() -> Outcome<Interrupt> {
        let interrupt = Interrupt {
            is_deadly: Arc::new(AtomicBool::new(true)),
            was_pressed: Arc::new(AtomicBool::new(false)),
        };
        // Run in this order: first look whether to end, then note for the next time.
        let is_deadly = Arc::clone(&interrupt.is_deadly);
        signal_hook::flag::register_conditional_shutdown(SIGINT, EXIT_CODE.into(), is_deadly)?;
        for flag in [&interrupt.is_deadly, &interrupt.was_pressed] {
            signal_hook::flag::register(SIGINT, Arc::clone(flag))?;
        }
        Ok(interrupt)
    }

    /// The next Ctrl-C only shows in [`Interrupt::was_pressed`]; the one after it is deadly.
    pub(crate) fn spare_one(&self) {
        self.was_pressed.store(false, Ordering::Relaxed);
        self.is_deadly.store(false, Ordering::Relaxed);
    }

    /// From now on the end of standard input is a Ctrl-C: whoever holds its other end has gone.
    pub(crate) fn end_with_stdin(&self) -> Outcome {
        std::thread::Builder::new().name("feilun-stdin".to_owned()).spawn(|| {
            // An error is an end, too.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = signal_hook::low_level::raise(SIGINT);
        })?;
        Ok(())
    }

    /// Set by the next Ctrl-C after [`Interrupt::spare_one`].
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.was_pressed)
    }

    pub(crate) fn was_pressed(&self) -> bool {
        self.was_pressed.load(Ordering::Relaxed)
    }
}
