//! Cutting a text into words that are encoded one by one, as `tokenizer.json` lists it.

use std::borrow::Cow;

use super::error::TokenizerError;
use super::normalize::Place;
use super::pattern::Pattern;

/// What becomes of the matches of an expression. The names are those of `tokenizer.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// When a space is put before a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    Always,
    /// Only at the start of the whole text.
    First,
    Never,
}

/// One way of cutting.
#[derive(Debug)]
pub(super) enum Split {
    /// At the matches of an expression, or at what lies between them.
    Pattern { pattern: Pattern, behaviour: Behaviour, invert: bool },
    /// At digits: at each one, or at each run.
    Digits { each: bool },
    /// At spaces, which become `▁` and begin the next word.
    Metaspace { prefix: Prefix, split: bool },
    /// A space before the text, where there is none (GPT-2's relatives).
    SpaceBefore,
}

/// The pieces of a text; most borrow from it.
pub(super) type Pieces<'t> = Vec<Cow<'t, str>>;

/// Applies every step to every piece.
pub(super) fn split<'t>(
    steps: &[Split],
    text: &'t str,
    place: Place,
) -> Result<Pieces<'t>, TokenizerError> {
    let mut pieces: Pieces<'t> = vec![Cow::Borrowed(text)];
    for step in steps {
        let mut cut = Vec::with_capacity(pieces.len());
        for (index, piece) in pieces.into_iter().enumerate() {
            step.apply(piece, index == 0 && place == Place::Start, &mut cut)?;
        }
        pieces = cut;
    }
    Ok(pieces)
}

impl Split {
    fn apply<'t>(
        &self,
        piece: Cow<'t, str>,
        first: bool,
        out: &mut Pieces<'t>,
    ) -> Result<(), TokenizerError> {
        match self {
            Split::Pattern { pattern, behaviour, invert } => {
                let mut marks = Marks::default();
                pattern.for_each(&piece, |start, end| marks.add(start, end))?;
                marks.finish(piece.len());
                cut(piece, marks.ranges, *behaviour, *invert, out);
            }
            Split::Digits { each } => {
                let mut marks = Marks::default();
                for (start, digit) in piece.char_indices().filter(|(_, c)| c.is_numeric()) {
                    marks.add(start, start + digit.len_utf8());
                }
                marks.finish(piece.len());
                let behaviour = if *each { Behaviour::Isolated } else { Behaviour::Contiguous };
                cut(piece, marks.ranges, behaviour, false, out);
            }
            Split::Metaspace { prefix, split } => {
                let wanted = *prefix == Prefix::Always || (*prefix == Prefix::First && first);
                let mut text = piece.replace(' ', "▁");
                if wanted && !text.is_empty() && !text.starts_with('▁') {
                    text.insert(0, '▁');
                }
                if !split {
                    out.push(text.into());
                    return Ok(());
                }
                let mut marks = Marks::default();
                for (start, space) in text.match_indices('▁') {
                    marks.add(start, start + space.len());
                }
                marks.finish(text.len());
                cut(text.into(), marks.ranges, Behaviour::MergedWithNext, false, out);
            }
            Split::SpaceBefore => {
                let bare = !piece.starts_with(' ');
                out.push(if bare { format!(" {piece}").into() } else { piece });
            }
        }
        Ok(())
    }
}

/// Ranges that cover a text, each with whether it is a match.
#[derive(Default)]
struct Marks {
    ranges: Vec<(usize, usize, bool)>,
    done: usize,
}

impl Marks {
    fn add(&mut self, start: usize, end: usize) {
        if start > self.done {
            self.ranges.push((self.done, start, false));
        }
        self.ranges.push((start, end, true));
        self.done = end;
    }

    fn finish(&mut self, length: usize) {
        if length > self.done {
            self.ranges.push((self.done, length, false));
        }
    }
}

fn cut<'t>(
    piece: Cow<'t, str>,
    mut ranges: Vec<(usize, usize, bool)>,
    behaviour: Behaviour,
    invert: bool,
    out: &mut Pieces<'t>,
) {
    if invert {
        ranges.iter_mut().for_each(|range| range.2 = !range.2);
    }
    let ranges = match behaviour {
        Behaviour::Isolated => ranges,
        Behaviour::Removed => ranges.into_iter().filter(|range| !range.2).collect(),
        Behaviour::Contiguous => join(ranges, |last, next| last == next),
        // A match joins what stands before it, unless that is a match too.
        Behaviour::MergedWithPrevious => join(ranges, |last, next| next && !last),
        Behaviour::MergedWithNext => join(ranges, |last, next| last && !next),
    };
    let kept = ranges.into_iter().filter(|(start, end, _)| end > start);
    match piece {
        Cow::Borrowed(text) => out.extend(kept.map(|(start, end, _)| text[start..end].into())),
        Cow::Owned(text) => {
            out.extend(kept.map(|(start, end, _)| text[start..end].to_string().into()));
        }
    }
}

/// Joins neighbours of which `joins` says so, given whether each one is a match. What was joined
/// counts as its last part.
fn join(
    ranges: Vec<(usize, usize, bool)>,
    joins: impl Fn(bool, bool) -> bool,
) -> Vec<(usize, usize, bool)> {
    let mut joined: Vec<(usize, usize, bool)> = Vec::with_capacity(ranges.len());
    for (start, end, is_match) in ranges {
        match joined.last_mut() {
            Some(last) if joins(last.2, is_match) => (last.1, last.2) = (end, is_match),
            _ => joined.push((start, end, is_match)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(step: Split, text: &str, expected: &[&str]) {
        assert_eq!(split(&[step], text, Place::Start).unwrap(), expected);
    }

    fn dashes(behaviour: Behaviour) -> Split {
        Split::Pattern { pattern: Pattern::new("-").unwrap(), behaviour, invert: false }
    }

    // The expected pieces are the examples of the documentation of Hugging Face `tokenizers`.
    #[test]
    fn matches_behave_as_named() {
        let text = "the-final--countdown";
        check(dashes(Behaviour::Removed), text, &["the", "final", "countdown"]);
        check(dashes(Behaviour::Isolated), text, &["the", "-", "final", "-", "-", "countdown"]);
        check(dashes(Behaviour::MergedWithPrevious), text, &["the-", "final-", "-", "countdown"]);
        check(dashes(Behaviour::MergedWithNext), text, &["the", "-final", "-", "-countdown"]);
        check(dashes(Behaviour::Contiguous), text, &["the", "-", "final", "--", "countdown"]);
    }

    #[test]
    fn digits_and_spaces() {
        check(Split::Digits { each: true }, "a12 3", &["a", "1", "2", " ", "3"]);
        check(Split::Digits { each: false }, "a12 3", &["a", "12", " ", "3"]);
        let metaspace = |prefix| Split::Metaspace { prefix, split: true };
        check(metaspace(Prefix::Always), "a b  c", &["▁a", "▁b", "▁", "▁c"]);
        check(metaspace(Prefix::Never), "a b", &["a", "▁b"]);
    }
}
