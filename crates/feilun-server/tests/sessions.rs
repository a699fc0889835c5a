//! Browsers: logging in, what a cookie is worth and what it is not, and how sessions end.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Answer, TestServer, chat};
use feilun_server::TlsFiles;
use feilun_server::stub::StubOptions;
use feilun_store::audit::Actor;
use feilun_store::users::Role;
use serde_json::json;

const CHAT: &str = "/v1/chat/completions";

/// A browser on a page of the server's own.
struct Browser {
    origin: String,
    cookie: String,
    csrf: String,
}

fn log_in(server: &TestServer, key: &str, headers: &[(&str, &str)]) -> Answer {
    server.send("POST", "/login", headers, Some(&json!({"key": key})))
}

impl Browser {
    #[track_caller]
    fn new(server: &TestServer, key: &str) -> Browser {
        Browser::of(server, &log_in(server, key, &[]))
    }

    #[track_caller]
    fn of(server: &TestServer, answer: &Answer) -> Browser {
        assert_eq!(answer.status, 200, "{}", answer.text);
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let csrf = answer.json()["csrf_token"].as_str().unwrap().to_owned();
        Browser { origin: format!("http://{}", server.address), cookie, csrf }
    }

    fn get(&self, server: &TestServer, path: &str) -> Answer {
        server.send("GET", path, &[("cookie", &self.cookie)], None)
    }

    /// As a script of the page does it.
    fn chat(&self, server: &TestServer) -> u16 {
        let headers =
            [("cookie", &*self.cookie), ("origin", &self.origin), ("x-csrf-token", &self.csrf)];
        server.send("POST", CHAT, &headers, Some(&chat(json!({})))).status
    }
}

#[test]
fn a_browser_logs_in_and_out() {
    let server = TestServer::start();
    let key = server.key(Role::Member);
    let answer = log_in(&server, &key, &[]);
    let cookie = answer.header("set-cookie").unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.split("; ").any(|found| found == attribute), "{attribute}: {cookie}");
    }
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.json()["role"], "member");
    assert!(!answer.text.contains(&key[3..]));
    let browser = Browser::of(&server, &answer);
    let token = browser.cookie.split('=').nth(1).unwrap();
    assert!(!answer.text.contains(token), "no script may know it");
    assert_eq!(server.get("/v1/models").status, 401);
    assert_eq!(browser.get(&server, "/v1/models").status, 200);
    assert_eq!(browser.chat(&server), 200);
    // A page that was loaded again learns the second token again.
    let session = browser.get(&server, "/session").json();
    assert_eq!(
        (&session["csrf_token"], &session["role"]),
        (&json!(browser.csrf), &json!("member"))
    );

    let leave = |headers: &[(&str, &str)]| server.send("POST", "/logout", headers, None);
    assert_eq!(leave(&[("cookie", &browser.cookie)]).status, 403, "another site logs nobody out");
    let origin = ("origin", &*browser.origin);
    let left = leave(&[("cookie", &browser.cookie), origin, ("x-csrf-token", &browser.csrf)]);
    assert_eq!(left.status, 200, "{}", left.text);
    assert!(left.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(browser.get(&server, "/v1/models").status, 401);
    assert_eq!(browser.chat(&server), 401);
}

#[test]
fn a_cookie_alone_changes_nothing() {
    let server = TestServer::with(StubOptions::default(), |config| {
        config.origins = vec!["https://app.example".to_owned()];
    });
    let key = server.key(Role::Admin);
    let (browser, other) = (Browser::new(&server, &key), Browser::new(&server, &key));
    assert_ne!((&browser.cookie, &browser.csrf), (&other.cookie, &other.csrf));
    let (cookie, csrf) = (("cookie", &*browser.cookie), ("x-csrf-token", &*browser.csrf));
    let origin = ("origin", &*browser.origin);
    let body = chat(json!({}));
    let alias = json!({"name": "a@prod", "model": null, "expected": null});
    let port = format!("http://127.0.0.1:{}", server.address.port() ^ 1);
    for headers in [
        vec![cookie],
        // A token that may have leaked, but no page of ours.
        vec![cookie, csrf],
        vec![cookie, csrf, ("origin", "null")],
        vec![cookie, csrf, ("origin", &port)],
        vec![cookie, csrf, ("origin", "http://evil.example")],
        vec![cookie, csrf, ("sec-fetch-site", "same-site")],
        vec![cookie, csrf, ("sec-fetch-site", "none")],
        // A page that may use the server, but with keys of its own.
        vec![cookie, csrf, ("origin", "https://app.example")],
        // A page of ours, but no token, or somebody else's.
        vec![cookie, origin],
        vec![cookie, origin, ("x-csrf-token", "")],
        vec![cookie, origin, ("x-csrf-token", "null")],
        vec![cookie, origin, ("x-csrf-token", &other.csrf)],
    ] {
        for (method, path, body) in [("POST", CHAT, &body), ("PUT", "/v1/aliases", &alias)] {
            let answer = server.send(method, path, &headers, Some(body));
            let found = (answer.status, answer.code());
            assert_eq!(found, (403, "cross_site".to_owned()), "{headers:?} {path}");
        }
    }
    assert_eq!(browser.chat(&server), 200);
    // With a key in the request no cookie counts: no browser adds it by itself.
    let bearer = format!("Bearer {key}");
    let headers = [cookie, ("authorization", &*bearer)];
    assert_eq!(server.send("POST", CHAT, &headers, Some(&body)).status, 200);
    // A wrong one is not made good by the cookie.
    let wrong = [cookie, ("authorization", "Bearer unused")];
    assert_eq!(server.send("GET", "/v1/models", &wrong, None).status, 401);
}

#[test]
fn a_login_makes_a_new_token_and_ends_the_old() {
    let server = TestServer::start();
    let key = server.key(Role::App);
    let before = Browser::new(&server, &key);
    let after = Browser::of(&server, &log_in(&server, &key, &[("cookie", &before.cookie)]));
    assert_eq!((before.chat(&server), after.chat(&server)), (401, 200));
    // Whoever puts a cookie into a browser does not know what it is after the login.
    let planted = format!("feilun-session={}", "A".repeat(43));
    let victim = Browser::of(&server, &log_in(&server, &key, &[("cookie", &planted)]));
    assert_ne!(victim.cookie, planted);
    let planted = Browser { cookie: planted, ..Browser::of(&server, &log_in(&server, &key, &[])) };
    assert_eq!(planted.chat(&server), 401);
    // Two cookies of the name: one may be planted, so neither counts.
    let both = format!("{}; {}", planted.cookie, victim.cookie);
    let refused = server.send("GET", "/v1/models", &[("cookie", &both)], None);
    assert_eq!(refused.status, 401);
}

#[test]
fn a_session_is_worth_what_its_key_is() {
    let server = TestServer::with(StubOptions::default(), |config| {
        config.limits.session_time = Duration::from_secs(2);
    });
    let (id, key) = server.key_with(Role::Member, |key| key.requests_per_minute = Some(4));
    let browser = Browser::new(&server, &key);
    assert_eq!(browser.get(&server, "/metrics").status, 403, "a member's");
    // The login took one request of the key's rate, and the session takes the others.
    assert_eq!([(); 4].map(|()| browser.chat(&server)), [200, 200, 200, 429]);
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(browser.get(&server, "/v1/models").status, 401, "it has ended");

    let (other, key) = server.key_with(Role::Member, |_| {});
    let browser = Browser::new(&server, &key);
    assert_eq!(browser.chat(&server), 200);
    server.runtime.block_on(server.store.revoke_key(other, Actor::Operator)).unwrap();
    assert_eq!(browser.chat(&server), 401);
    server.runtime.block_on(server.store.revoke_key(id, Actor::Operator)).unwrap();
}

#[test]
fn what_is_no_key_logs_nobody_in() {
    let server = TestServer::start();
    let key = server.key(Role::App);
    let expired = server.key_with(Role::App, |key| key.expires_at = common::expired()).1;
    let other = if &key[10..11] == "A" { "B" } else { "A" };
    let almost = format!("{}{other}{}", &key[..10], &key[11..]);
    for wrong in ["", "unused", "fl-", &key[1..], &almost, &expired] {
        let refused = log_in(&server, wrong, &[]);
        assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_api_key"), "{wrong}");
        assert_eq!(refused.header("set-cookie"), None);
    }
    // Another site logs nobody in, not even as itself.
    for headers in [[("origin", "http://evil.example")], [("sec-fetch-site", "cross-site")]] {
        assert_eq!(log_in(&server, &key, &headers).code(), "cross_site");
    }
    let form = server.raw(
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
          Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 5\r\n\r\nkey=x",
    );
    assert!(form.starts_with("HTTP/1.1 415"), "{form}");
}

#[test]
fn under_tls_the_cookie_is_this_hosts_alone() {
    let folder = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        certificate: folder.path().join("cert.pem"),
        key: folder.path().join("key.pem"),
    };
    std::fs::write(&files.certificate, signed.cert.pem()).unwrap();
    std::fs::write(&files.key, signed.signing_key.serialize_pem()).unwrap();
    let server = TestServer::with(StubOptions::default(), |config| config.tls = Some(files));
    let key = server.key(Role::Member);
    let tls = ureq::tls::TlsConfig::builder().disable_verification(true).build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).build().into();
    let url = format!("https://{}/login", server.address);
    let request = agent.post(url).content_type("application/json");
    let answer = request.send(json!({"key": key}).to_string()).unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-feilun-session="), "{cookie}");
    assert!(cookie.split("; ").any(|attribute| attribute == "Secure"), "{cookie}");
}
