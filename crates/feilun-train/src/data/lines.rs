//! Lines of a file, one pass, in bounded memory whatever the file holds.

use std::io::{self, BufRead};

/// One line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// From 1.
    pub number: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// Without the line break. The buffer holds it only if this is within the limit.
    pub num_bytes: u64,
}

/// Reads lines, and digests every byte that it reads.
pub(crate) struct Lines<R> {
    reader: R,
    limit: usize,
    next: u64,
    offset: u64,
    hasher: blake3::Hasher,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Lines<R> {
        Lines { reader, limit, next: 1, offset: 0, hasher: blake3::Hasher::new() }
    }

    /// The next line, into `buffer`; of a line that is longer than the limit the buffer gets
    /// only the beginning.
    pub(crate) fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<Line>> {
        buffer.clear();
        let mut num_bytes = 0;
        let mut ended = false;
        while !ended {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                break;
            }
            let end = available.iter().position(|&byte| byte == b'\n');
            ended = end.is_some();
            let part = &available[..end.unwrap_or(available.len())];
            num_bytes += part.len() as u64;
            let space = self.limit - buffer.len();
            buffer.extend_from_slice(&part[..part.len().min(space)]);
            let consumed = part.len() + usize::from(ended);
            self.hasher.update(&available[..consumed]);
            self.reader.consume(consumed);
        }
        if num_bytes == 0 && !ended {
            return Ok(None);
        }
        let line = Line { number: self.next, offset: self.offset, num_bytes };
        self.next += 1;
        self.offset += num_bytes + u64::from(ended);
        Ok(Some(line))
    }

    /// How many bytes were read.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The digest of all bytes that were read.
    pub(crate) fn digest(&self) -> blake3::Hash {
        self.hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], limit: usize, capacity: usize) -> Vec<(Line, Vec<u8>)> {
        let mut lines = Lines::new(io::BufReader::with_capacity(capacity, bytes), limit);
        let mut all = Vec::new();
        let mut buffer = Vec::new();
        while let Some(line) = lines.next(&mut buffer).unwrap() {
            all.push((line, buffer.clone()));
        }
        assert_eq!(lines.offset(), bytes.len() as u64);
        assert_eq!(lines.digest(), blake3::hash(bytes));
        all
    }

    #[test]
    fn lines_have_numbers_offsets_and_lengths() {
        for capacity in 1..8 {
            let found = read(b"ab\n\nabcdefgh\nx", 4, capacity);
            let lines: Vec<_> = found
                .iter()
                .map(|(l, text)| (l.number, l.offset, l.num_bytes, &text[..]))
                .collect();
            let expected: [(u64, u64, u64, &[u8]); 4] =
                [(1, 0, 2, b"ab"), (2, 3, 0, b""), (3, 4, 8, b"abcd"), (4, 13, 1, b"x")];
            assert_eq!(lines, expected);
        }
    }

    #[test]
    fn a_last_line_break_begins_no_line() {
        assert_eq!(read(b"", 4, 8).len(), 0);
        assert_eq!(read(b"a\n", 4, 8).len(), 1);
        assert_eq!(read(b"\n", 4, 8).len(), 1);
    }
}
