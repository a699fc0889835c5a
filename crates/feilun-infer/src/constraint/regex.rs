//! Checks a regular expression before llguidance sees it.
//!
//! llguidance writes it into a Lark grammar and drops or changes what it does not expect there: a
//! last backslash, white space in verbose mode. What would not mean the same is refused.

use regex_syntax::ParserBuilder;

use super::{ConstraintError, ConstraintKind};

pub(super) fn check(text: &str, depth_max: usize) -> Result<(), ConstraintError> {
    let refused = |reason: &str| ConstraintError::Refused {
        kind: ConstraintKind::Regex,
        reason: super::shorten(reason),
    };
    let parse = |text: &str| {
        let depth_max = u32::try_from(depth_max).unwrap_or(u32::MAX);
        let mut parser = ParserBuilder::new().nest_limit(depth_max).build();
        parser.parse(text).map_err(|error| refused(&error.to_string()))
    };
    let meaning = parse(text)?;
    let rewritten = parse(&llguidance::regex_to_lark(text, ""));
    if rewritten.is_ok_and(|rewritten| rewritten == meaning) {
        Ok(())
    } else {
        Err(refused("it cannot be used here without changing its meaning"))
    }
}
