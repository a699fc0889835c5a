//! The border that a panic does not cross: one request's fault ends that request.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::event::GenerationError;

/// Longest message of a panic that is passed on, in characters.
const MESSAGE_MAX: usize = 300;

/// Runs `body`; a panic becomes an error. The caller throws away, or makes anew, whatever `body`
/// was changing.
pub(crate) fn isolate<T>(body: impl FnOnce() -> T) -> Result<T, GenerationError> {
    catch_unwind(AssertUnwindSafe(body))
        .map_err(|payload| GenerationError::Panicked { message: message(payload.as_ref()) })
}

/// What a panic says, shortened.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    text.chars().take(MESSAGE_MAX).collect()
}
