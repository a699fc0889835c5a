//! Stop strings, found in streamed text across the borders of tokens.
//!
//! No part of a stop string is ever released: text that may turn out to begin one is held back,
//! and no other. The first stop string to be completed ends the text; of several that end at the
//! same byte, the longest. So the result does not depend on how the text arrives in pieces.

/// Most stop strings of one request.
pub const STOP_STRINGS_MAX: usize = 16;
/// Longest stop string, in bytes.
pub const STOP_STRING_BYTES_MAX: usize = 1024;

/// A stop string that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// Too many of them.
    #[error("found {found} stop strings, at most {STOP_STRINGS_MAX} are allowed")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// One that would stop everything.
    #[error("stop string {index} is empty")]
    Empty {
        /// Which.
        index: usize,
    },
    /// One that is too long.
    #[error("stop string {index} has {found} bytes, at most {STOP_STRING_BYTES_MAX} are allowed")]
    TooLong {
        /// Which.
        index: usize,
        /// Its length.
        found: usize,
    },
}

/// Checks stop strings against the bounds above.
///
/// # Errors
/// The first bound that is broken.
pub fn validate(strings: &[String]) -> Result<(), StopError> {
    if strings.len() > STOP_STRINGS_MAX {
        return Err(StopError::TooMany { found: strings.len() });
    }
    for (index, string) in strings.iter().enumerate() {
        if string.is_empty() {
            return Err(StopError::Empty { index });
        }
        if string.len() > STOP_STRING_BYTES_MAX {
            return Err(StopError::TooLong { index, found: string.len() });
        }
    }
    Ok(())
}

/// One stop string and how much of it the text ends with: Knuth, Morris and Pratt's automaton.
#[derive(Clone, Debug)]
struct Pattern {
    bytes: Vec<u8>,
    /// `borders[i]`: length of the longest proper border of the first `i + 1` bytes.
    borders: Vec<usize>,
    matched: usize,
}

impl Pattern {
    fn new(string: &str) -> Pattern {
        let bytes = string.as_bytes().to_vec();
        let mut borders = vec![0; bytes.len()];
        let mut border = 0;
        for i in 1..bytes.len() {
            while border > 0 && bytes[i] != bytes[border] {
                border = borders[border - 1];
            }
            if bytes[i] == bytes[border] {
                border += 1;
            }
            borders[i] = border;
        }
        Pattern { bytes, borders, matched: 0 }
    }

    /// Reads one byte; true if that completes the string.
    fn push(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        if self.bytes[self.matched] == byte {
            self.matched += 1;
        }
        self.matched == self.bytes.len()
    }
}

/// What may be shown after a piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// Text that belongs to no stop string.
    pub text: String,
    /// The index of the stop string that was found; nothing may follow.
    pub stopped_by: Option<usize>,
}

/// Watches one stream of text.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    patterns: Vec<Pattern>,
    /// Text not released yet: exactly the longest partial match.
    held: String,
}

impl StopMatcher {
    /// A matcher for strings that have passed [`validate`]; empty ones are ignored.
    pub fn new(strings: &[String]) -> StopMatcher {
        let patterns = strings.iter().filter(|s| !s.is_empty()).map(|s| Pattern::new(s)).collect();
        StopMatcher { patterns, held: String::new() }
    }

    /// Reads a piece of text.
    ///
    /// ```
    /// use feilun_infer::stop::StopMatcher;
    /// let mut matcher = StopMatcher::new(&["END".to_owned()]);
    /// assert_eq!(matcher.push("the E").text, "the ");
    /// assert_eq!(matcher.push("agle").text, "Eagle");
    /// let last = matcher.push(" ENDs");
    /// assert_eq!((last.text.as_str(), last.stopped_by), (" ", Some(0)));
    /// ```
    pub fn push(&mut self, piece: &str) -> Released {
        let already = self.held.len();
        self.held.push_str(piece);
        for at in already..self.held.len() {
            let byte = self.held.as_bytes()[at];
            let mut found: Option<(usize, usize)> = None;
            for (index, pattern) in self.patterns.iter_mut().enumerate() {
                let len = pattern.bytes.len();
                if pattern.push(byte) && found.is_none_or(|(_, longest)| len > longest) {
                    found = Some((index, len));
                }
            }
            if let Some((index, len)) = found {
                self.held.truncate(at + 1 - len);
                return Released { text: std::mem::take(&mut self.held), stopped_by: Some(index) };
            }
        }
        let keep = self.patterns.iter().map(|p| p.matched).max().unwrap_or(0);
        let tail = self.held.split_off(self.held.len() - keep);
        Released { text: std::mem::replace(&mut self.held, tail), stopped_by: None }
    }

    /// What was held back when the text ended otherwise.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pushes pieces; returns all that was released and the stop.
    fn run(stops: &[String], pieces: &[&str]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops);
        let mut text = String::new();
        for piece in pieces {
            let released = matcher.push(piece);
            text.push_str(&released.text);
            if released.stopped_by.is_some() {
                return (text, released.stopped_by);
            }
        }
        text.push_str(&matcher.finish());
        (text, None)
    }

    fn strings(all: &[&str]) -> Vec<String> {
        all.iter().map(|&s| s.to_owned()).collect()
    }

    #[test]
    fn stops_are_found_across_pieces() {
        let stops = strings(&["</s>", "\n\n", "用户"]);
        assert_eq!(run(&stops, &["a<", "/", "s", ">b"]), ("a".into(), Some(0)));
        assert_eq!(run(&stops, &["a\n", "b\n", "\nc"]), ("a\nb".into(), Some(1)));
        assert_eq!(run(&stops, &["问用", "户"]), ("问".into(), Some(2)));
        assert_eq!(run(&stops, &["a<", "/s"]), ("a</s".into(), None));
        // The partial match must fall back, not start over.
        assert_eq!(run(&strings(&["aab"]), &["aa", "ab"]), ("a".into(), Some(0)));
    }

    #[test]
    fn only_what_may_become_a_stop_is_held_back() {
        let mut matcher = StopMatcher::new(&strings(&["abc"]));
        assert_eq!(matcher.push("xxab").text, "xx");
        assert_eq!(matcher.push("ab").text, "ab");
        assert_eq!(matcher.push("z").text, "abz");
        assert_eq!(StopMatcher::new(&[]).push("all").text, "all");
    }

    #[test]
    fn of_stops_that_end_together_the_longest_counts() {
        assert_eq!(run(&strings(&["b", "ab"]), &["xab"]), ("x".into(), Some(1)));
        // "b" is complete before "abc" is.
        assert_eq!(run(&strings(&["abc", "b"]), &["xabc"]), ("xa".into(), Some(1)));
    }

    #[test]
    fn bounds_are_kept() {
        assert_eq!(validate(&strings(&["a", ""])), Err(StopError::Empty { index: 1 }));
        assert_eq!(validate(&vec!["a".into(); 17]), Err(StopError::TooMany { found: 17 }));
        assert_eq!(
            validate(&["a".repeat(1025)]),
            Err(StopError::TooLong { index: 0, found: 1025 })
        );
        assert_eq!(validate(&strings(&["a"])), Ok(()));
    }

    proptest! {
        #[test]
        fn agrees_with_a_search_of_the_whole_text(
            text in "[ab好]{0,40}",
            stops in prop::collection::vec("[ab好]{1,4}", 0..4),
            cuts in prop::collection::vec(0usize..40, 0..10),
        ) {
            // The plain definition: the least end of any occurrence, then the longest.
            let expected = text.char_indices().map(|(i, c)| i + c.len_utf8()).find_map(|end| {
                let fits = |s: &&String| text[..end].ends_with(s.as_str());
                stops.iter().filter(fits).map(String::len).max().map(|len| &text[..end - len])
            });
            let mut borders: Vec<usize> =
                cuts.into_iter().filter(|&c| c < text.len() && text.is_char_boundary(c)).collect();
            borders.sort_unstable();
            borders.push(text.len());
            let mut start = 0;
            let mut pieces = Vec::new();
            for border in borders {
                pieces.push(&text[start..border]);
                start = border;
            }
            let (found, stopped) = run(&stops, &pieces);
            prop_assert_eq!(stopped.is_some(), expected.is_some());
            prop_assert_eq!(found.as_str(), expected.unwrap_or(text.as_str()));
        }
    }
}
