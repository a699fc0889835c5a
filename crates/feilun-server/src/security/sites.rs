//! Against web pages that reach for a server in their visitor's network.
//!
//! A page can make a browser send requests to any address, and by DNS rebinding even under a
//! name of its own. Both show: in the `Host` header, which then has a name that is not ours, or in
//! `Origin` and `Sec-Fetch-Site`, which browsers set and pages cannot. Programs send neither
//! of the latter, so nothing changes for them. (CVE-2024-28224 and its like.)

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Uri};

use crate::error::{ApiError, ErrorKind};

/// The names under which this server may be asked, and the pages that may ask.
#[derive(Clone, Debug)]
pub(crate) struct Sites {
    /// Lower case, without port.
    hosts: Vec<String>,
    origins: Vec<String>,
    is_loopback: bool,
}

impl Sites {
    /// For a server at `address`; `hosts` are further names of it, `origins` pages of others
    /// that may use it.
    pub(crate) fn new(address: SocketAddr, hosts: &[String], origins: &[String]) -> Sites {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let mut hosts: Vec<String> = lower(hosts);
        hosts.push("localhost".to_owned());
        if !address.ip().is_unspecified() {
            hosts.push(written(address.ip()));
        }
        Sites { hosts, origins: lower(origins), is_loopback: address.ip().is_loopback() }
    }

    /// Refuses a request that was sent to another name, or by a page of another site.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = self.host(uri, headers)?;
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        if let Some(origin) = text(ORIGIN.as_str()) {
            let origin = origin.to_ascii_lowercase();
            let own = origin.split_once("://").is_some_and(|(scheme, rest)| {
                (scheme == "http" || scheme == "https") && rest == host
            });
            if !own && !self.origins.contains(&origin) {
                return Err(cross_site());
            }
            return Ok(());
        }
        // Requests without Origin, such as an image's or a link's.
        match text("sec-fetch-site") {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) => Err(cross_site()),
        }
    }

    /// Whether a page of this very server sent it, and not merely one that may use it. For what
    /// passed [`Sites::check`], whose `Host` is ours.
    pub(crate) fn is_own_page(&self, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match (text(ORIGIN.as_str()), text(HOST.as_str())) {
            (Some(origin), Some(host)) => origin
                .split_once("://")
                .is_some_and(|(_, of_origin)| of_origin.eq_ignore_ascii_case(host)),
            _ => text("sec-fetch-site") == Some("same-origin"),
        }
    }

    /// The name and port that was asked, if it is ours.
    fn host(&self, uri: &Uri, headers: &HeaderMap) -> Result<String, ApiError> {
        let wrong = || {
            let message = "this server does not answer under that name; add it with --host";
            ApiError::new(ErrorKind::WrongHost, message)
        };
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(wrong()) };
        let host = host.to_str().map_err(|_| wrong())?.to_ascii_lowercase();
        // A target in absolute form must not say something else.
        if uri.authority().is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(&host))
        {
            return Err(wrong());
        }
        let name = without_port(&host).ok_or_else(wrong)?;
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_known = match address {
            // A name that is an address cannot be rebound; on an outer interface the machine may
            // have several. On loopback it must be a loopback one all the same.
            Ok(address) => !self.is_loopback || address.is_loopback(),
            Err(_) => self.hosts.iter().any(|known| known == name),
        };
        if is_known { Ok(host) } else { Err(wrong()) }
    }
}

fn cross_site() -> ApiError {
    let message = "a page of another site sent this; allow its origin with --allow-origin";
    ApiError::new(ErrorKind::CrossSite, message)
}

/// The name before the port; `None` where there is rubbish.
fn without_port(host: &str) -> Option<&str> {
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let is_port =
        |port: &str| port.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok());
    (!name.is_empty() && (port.is_empty() || is_port(port))).then_some(name)
}

fn written(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn ask(listen: &str, pairs: &[(&str, &str)]) -> Result<(), &'static str> {
        let sites = Sites::new(
            listen.parse().unwrap(),
            &["Model.example".to_owned()],
            &["https://app.example".to_owned()],
        );
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        sites.check(&Uri::from_static("/v1/models"), &headers).map_err(|error| error.kind().code())
    }

    const LOOPBACK: &str = "127.0.0.1:8080";

    #[test]
    fn names_that_are_ours_pass() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "model.example"] {
            assert_eq!(ask(LOOPBACK, &[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(ask("0.0.0.0:80", &[("host", "192.168.1.7")]), Ok(()));
    }

    #[test]
    fn rebound_names_are_refused() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "",
            "localhost:99999",
            "localhost:",
            "127.0.0.1.nip.io",
            "192.168.1.7",
            "[::1",
            "user@localhost",
        ] {
            assert_eq!(ask(LOOPBACK, &[("host", host)]), Err("wrong_host"), "{host}");
        }
        assert_eq!(ask(LOOPBACK, &[]), Err("wrong_host"));
        let two = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(ask(LOOPBACK, &two), Err("wrong_host"));
        assert_eq!(ask("0.0.0.0:80", &[("host", "evil.example")]), Err("wrong_host"));
    }

    #[test]
    fn own_pages_say_so() {
        let sites = Sites::new(LOOPBACK.parse().unwrap(), &[], &["https://app.example".to_owned()]);
        let is_own = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            headers.append("host", HeaderValue::from_static("localhost:8080"));
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_str(value).unwrap());
            }
            sites.is_own_page(&headers)
        };
        assert!(is_own(&[("origin", "http://localhost:8080")]));
        assert!(is_own(&[("sec-fetch-site", "same-origin")]));
        for other in ["https://app.example", "http://localhost", "null", ""] {
            assert!(!is_own(&[("origin", other)]), "{other}");
            // One header does not make up for the other.
            assert!(!is_own(&[("origin", other), ("sec-fetch-site", "same-origin")]), "{other}");
        }
        assert!(!is_own(&[]) && !is_own(&[("sec-fetch-site", "none")]));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let host = ("host", "localhost:8080");
        for origin in ["http://localhost:8080", "https://app.example", "HTTP://LOCALHOST:8080"] {
            assert_eq!(ask(LOOPBACK, &[host, ("origin", origin)]), Ok(()), "{origin}");
        }
        for origin in ["http://localhost:8081", "http://evil.example", "null", "file://", ""] {
            assert_eq!(ask(LOOPBACK, &[host, ("origin", origin)]), Err("cross_site"), "{origin}");
        }
        assert_eq!(ask(LOOPBACK, &[host, ("sec-fetch-site", "cross-site")]), Err("cross_site"));
        assert_eq!(ask(LOOPBACK, &[host, ("sec-fetch-site", "same-site")]), Err("cross_site"));
        assert_eq!(ask(LOOPBACK, &[host, ("sec-fetch-site", "same-origin")]), Ok(()));
    }
}
