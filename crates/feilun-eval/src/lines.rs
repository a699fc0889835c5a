//! Lines of a file, in bounded memory whatever the file holds.

use std::io::{self, BufRead, Read as _};

/// The next line into the buffer, of one that is too long `max` bytes and one more; returns its
/// whole length, with its end, and 0 at the end of the file.
pub(crate) fn read_line(
    reader: &mut impl BufRead,
    buffer: &mut Vec<u8>,
    max: usize,
) -> io::Result<usize> {
    buffer.clear();
    let mut found = reader.by_ref().take(max as u64 + 1).read_until(b'\n', buffer)?;
    if buffer.len() > max && buffer.last() != Some(&b'\n') {
        found += skip_line(reader)?;
    }
    Ok(found)
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<usize> {
    let mut skipped = 0;
    loop {
        let available = reader.fill_buf()?;
        let end = available.iter().position(|&byte| byte == b'\n');
        let len = end.map_or(available.len(), |end| end + 1);
        reader.consume(len);
        skipped += len;
        if end.is_some() || len == 0 {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_and_counted() {
        let text = b"ab\n\nabcdefgh\nabcd\nx";
        for capacity in 1..8 {
            let mut reader = io::BufReader::with_capacity(capacity, &text[..]);
            let mut buffer = Vec::new();
            let mut found = Vec::new();
            loop {
                let num_bytes = read_line(&mut reader, &mut buffer, 4).unwrap();
                if num_bytes == 0 {
                    break;
                }
                found.push((num_bytes, buffer.clone()));
            }
            let expected: [(usize, &[u8]); 5] =
                [(3, b"ab\n"), (1, b"\n"), (9, b"abcde"), (5, b"abcd\n"), (1, b"x")];
            let expected: Vec<_> = expected.iter().map(|(n, text)| (*n, text.to_vec())).collect();
            assert_eq!(found, expected);
        }
    }
}
