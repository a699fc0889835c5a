//! API keys: 256 random bits that are shown once, and of which only a hash is kept.
//!
//! The hash is BLAKE3 and not a password hash: nobody guesses 256 random bits, and a lookup by
//! hash takes the same time whatever the key is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What keys begin with, so that scanners of source code can find them.
const PREFIX: &str = "fl-";
/// Random bytes of a key.
const SECRET_BYTES: usize = 32;

/// A key, to be shown to its owner once.
pub struct NewKey {
    /// The key itself.
    pub secret: String,
    /// What the store keeps.
    pub hash: [u8; 32],
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewKey")
    }
}

impl NewKey {
    /// A random key.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn random() -> Result<NewKey, getrandom::Error> {
        let mut bytes = [0u8; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        Ok(NewKey { hash: hash(&secret), secret })
    }
}

/// The hash of a key, or `None` for a text that cannot be one.
pub(crate) fn hash_of(text: &str) -> Option<[u8; 32]> {
    let body = text.strip_prefix(PREFIX)?;
    let bytes = URL_SAFE_NO_PAD.decode(body).ok()?;
    (bytes.len() == SECRET_BYTES).then(|| hash(text))
}

fn hash(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_random_and_known_by_their_hash() {
        let (one, other) = (NewKey::random().unwrap(), NewKey::random().unwrap());
        assert_ne!(one.secret, other.secret);
        assert_eq!(hash_of(&one.secret), Some(one.hash));
        assert!(!format!("{one:?}").contains(&one.secret));
        for text in ["", "fl-", "sk-abc", "fl-short", &one.secret[1..], &format!("{} ", one.secret)]
        {
            assert_eq!(hash_of(text), None, "{text}");
        }
    }
}
