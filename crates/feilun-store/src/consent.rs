//! Whether a turn may be learnt from.
//!
//! Three may say yes or no: the request, the key it came with, and the user. A no anywhere
//! wins; otherwise a yes anywhere; where nobody says anything,
//! [`StoreOptions::consent_by_default`](crate::StoreOptions::consent_by_default) decides, which
//! is no unless somebody changes it. The result is fixed in the turn when it is stored. A key or
//! a user that says no later takes back what was given: the turns stored before change too. A
//! yes later concerns new turns alone.

/// What the flags mean together.
pub(crate) fn combine(flags: &[Option<bool>], by_default: bool) -> bool {
    if flags.contains(&Some(false)) {
        return false;
    }
    flags.contains(&Some(true)) || by_default
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_no_anywhere_wins() {
        let (yes, no) = (Some(true), Some(false));
        for flags in [[no, yes, yes], [yes, no, yes], [yes, yes, no], [None, None, no]] {
            assert!(!combine(&flags, true), "{flags:?}");
        }
        assert!(combine(&[None, yes, None], false));
        assert!(combine(&[None; 3], true));
        assert!(!combine(&[None; 3], false));
    }
}
