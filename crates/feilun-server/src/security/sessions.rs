//! Browsers that somebody logged in with a key: the session's token is in a cookie that no script
//! can read and that no page of another site can have sent.
//!
//! A browser adds a cookie to whatever it sends, so a cookie alone proves nothing about who made
//! the request. What changes something must also come from a page of ours, which browsers say in
//! `Origin`, and bear a second token in a header, which only our pages can read. That one is made
//! of the first, so the store keeps a hash of the first and nothing else.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::sites::Sites;
use crate::error::{ApiError, ErrorKind};

/// Where a page of ours sends the second token.
pub(crate) const CSRF: HeaderName = HeaderName::from_static("x-csrf-token");
/// The cookie. Under TLS it has the prefix with which browsers refuse it from any other host,
/// path or connection (RFC 6265bis, section 4.1.3.2).
const COOKIE_PLAIN: &str = "feilun-session";
const COOKIE_TLS: &str = "__Host-feilun-session";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Makes the second token of the first.
const CSRF_CONTEXT: &str = "feilun 2026-11 csrf token of a session";

/// What a browser has to show.
#[derive(Clone)]
pub(crate) struct SessionToken([u8; TOKEN_BYTES]);

/// It is a secret.
impl std::fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionToken")
    }
}

impl SessionToken {
    /// A random one.
    pub(crate) fn random() -> Result<SessionToken, getrandom::Error> {
        let mut bytes = [0u8; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(SessionToken(bytes))
    }

    /// The one in the cookie; none where there are two, of which one may be somebody else's.
    pub(crate) fn in_headers(headers: &HeaderMap, is_tls: bool) -> Option<SessionToken> {
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut found = lines
            .flat_map(|line| line.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .filter(|(name, _)| *name == cookie_name(is_tls));
        let (Some((_, value)), None) = (found.next(), found.next()) else { return None };
        let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        bytes.try_into().ok().map(SessionToken)
    }

    /// What the store keeps. Nobody guesses 256 random bits, so a plain hash does.
    pub(crate) fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.0).as_bytes()
    }

    /// The second token, as a page sends it.
    pub(crate) fn csrf(&self) -> String {
        URL_SAFE_NO_PAD.encode(blake3::derive_key(CSRF_CONTEXT, &self.0))
    }

    /// The `Set-Cookie` that begins the session.
    pub(crate) fn cookie(&self, is_tls: bool, seconds: u64) -> String {
        cookie(&URL_SAFE_NO_PAD.encode(self.0), is_tls, seconds)
    }

    /// Refuses a request that no page of ours can have sent.
    pub(crate) fn check_page(&self, sites: &Sites, headers: &HeaderMap) -> Result<(), ApiError> {
        let refused = |message: &'static str| Err(ApiError::new(ErrorKind::CrossSite, message));
        if !sites.is_own_page(headers) {
            return refused("with a session, changes are made by this server's own pages alone");
        }
        let sent = headers.get(CSRF).and_then(|sent| URL_SAFE_NO_PAD.decode(sent).ok());
        let sent = sent.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let expected = blake3::Hash::from(blake3::derive_key(CSRF_CONTEXT, &self.0));
        // Two hashes are compared in a time that tells nothing.
        if sent.is_some_and(|sent| blake3::Hash::from(sent) == expected) {
            return Ok(());
        }
        refused("the header x-csrf-token must have the token that GET /session tells")
    }
}

/// The `Set-Cookie` that removes it.
pub(crate) fn no_cookie(is_tls: bool) -> String {
    cookie("", is_tls, 0)
}

fn cookie(value: &str, is_tls: bool, seconds: u64) -> String {
    let name = cookie_name(is_tls);
    let secure = if is_tls { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
}

fn cookie_name(is_tls: bool) -> &'static str {
    if is_tls { COOKIE_TLS } else { COOKIE_PLAIN }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn found(lines: &[&str], is_tls: bool) -> Option<[u8; 32]> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_str(line).unwrap());
        }
        SessionToken::in_headers(&headers, is_tls).map(|token| token.0)
    }

    #[test]
    fn a_cookie_is_read_as_it_was_written() {
        let token = SessionToken::random().unwrap();
        for is_tls in [false, true] {
            let written = token.cookie(is_tls, 60);
            let pair = written.split(';').next().unwrap();
            let among_others = format!("theme=dark; {pair}; x");
            for line in [pair, among_others.as_str()] {
                assert_eq!(found(&[line], is_tls), Some(token.0));
                assert_eq!(found(&[line], !is_tls), None, "the other name");
            }
            assert_eq!(found(&[pair, pair], is_tls), None, "two");
            assert_eq!(found(&[&pair[..pair.len() - 1]], is_tls), None, "cut short");
        }
        assert!(!format!("{token:?}").contains(&token.csrf()));
    }

    #[test]
    fn cookies_are_hardened() {
        let token = SessionToken::random().unwrap();
        let tls = token.cookie(true, 60);
        assert!(tls.starts_with("__Host-"), "{tls}");
        for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Secure", "Max-Age=60"] {
            assert!(tls.split("; ").any(|found| found == attribute), "{attribute}: {tls}");
        }
        assert!(!tls.contains("Domain"));
        assert!(!token.cookie(false, 60).contains("Secure"));
        assert!(no_cookie(true).contains("Max-Age=0"));
    }
}
