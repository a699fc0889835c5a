//! The hub client against a small server that misbehaves in one way at a time.

use std::net::TcpStream;
use std::path::PathBuf;

use self::server::{Request, Server, answer};
use super::*;

#[path = "../../tests/support/server.rs"]
mod server;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "secret-token";
/// Patience of the client under test; a server that stalls sleeps longer.
const STALL: Duration = Duration::from_millis(300);

impl Server {
    fn hub(&self) -> Hub {
        Hub::with_patience(&self.address("127.0.0.1"), Some(TOKEN), STALL)
    }
}

fn content() -> Vec<u8> {
    (0..100_000_u32).flat_map(|index| index.to_le_bytes()).collect()
}

/// An honest answer to a request for `content`.
fn serve_honestly(request: &Request, stream: &mut TcpStream) {
    let content = content();
    match request.range {
        None => answer(stream, "200 OK", "", content.len(), &content),
        Some(start) => {
            let range = format!("Content-Range: bytes {start}-{}/*\r\n", content.len() - 1);
            let rest = &content[start as usize..];
            answer(stream, "206 Partial Content", &range, rest.len(), rest);
        }
    }
}

/// One fetch into a new folder.
struct Fetch {
    folder: tempfile::TempDir,
    file: RemoteFile,
}

impl Fetch {
    fn new() -> Fetch {
        let sha256 = Some(hex_of(&content()));
        let file = RemoteFile { name: "a.gguf".to_owned(), bytes: content().len() as u64, sha256 };
        Fetch { folder: tempfile::tempdir().unwrap(), file }
    }

    fn partial(&self) -> PathBuf {
        self.folder.path().join("partial")
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("a.gguf")
    }

    fn run(&self, hub: &Hub) -> Outcome<FileEntry> {
        let repository = Repository {
            name: "org/repo".to_owned(),
            commit: COMMIT.to_owned(),
            licence: None,
            files: Vec::new(),
        };
        hub.fetch(&repository, &self.file, &self.partial(), &self.target())
    }

    #[track_caller]
    fn arrives(&self, hub: &Hub) {
        let entry = self.run(hub).unwrap();
        assert_eq!(Some(entry.sha256), self.file.sha256);
        assert_eq!(std::fs::read(self.target()).unwrap(), content());
        assert!(!self.partial().exists());
    }

    #[track_caller]
    fn fails(&self, hub: &Hub, expected: &str) {
        let failure = self.run(hub).unwrap_err().to_string();
        assert!(failure.contains(expected), "{failure}");
        assert!(!self.target().exists());
        assert!(length(&self.partial()) <= self.file.bytes);
    }
}

fn hex_of(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    sha256_of(file.path(), |_| ()).unwrap()
}

#[test]
fn a_file_arrives_and_the_token_goes_to_the_hub() {
    let server = Server::start(|request, _, stream| serve_honestly(request, stream));
    Fetch::new().arrives(&server.hub());
    let heard = server.heard();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].path, format!("/org/repo/resolve/{COMMIT}/a.gguf"));
    assert_eq!(heard[0].authorization.as_deref(), Some("bearer secret-token"));
}

#[test]
fn a_redirect_to_another_host_does_not_carry_the_token() {
    let elsewhere = Server::start(|request, _, stream| serve_honestly(request, stream));
    let location = format!("Location: {}/blob\r\n", elsewhere.address("localhost"));
    let server = Server::start(move |_, _, stream| answer(stream, "302 Found", &location, 0, b""));
    Fetch::new().arrives(&server.hub());
    assert_eq!(elsewhere.heard().len(), 1);
    assert_eq!(elsewhere.heard()[0].authorization, None);
}

#[test]
fn a_redirect_on_the_same_host_keeps_the_token() {
    let server = Server::start(|request, _, stream| match request.path.as_str() {
        "/renamed" => serve_honestly(request, stream),
        _ => answer(stream, "307 Temporary Redirect", "Location: /renamed\r\n", 0, b""),
    });
    Fetch::new().arrives(&server.hub());
    assert!(server.heard()[1].authorization.is_some());
}

#[test]
fn a_redirect_in_circles_ends() {
    let server = Server::start(|_, _, stream| {
        answer(stream, "302 Found", "Location: /again\r\n", 0, b"");
    });
    Fetch::new().fails(&server.hub(), "redirect");
}

#[test]
fn a_partial_file_is_taken_up() {
    let server = Server::start(|request, _, stream| serve_honestly(request, stream));
    let fetch = Fetch::new();
    std::fs::write(fetch.partial(), &content()[..1000]).unwrap();
    fetch.arrives(&server.hub());
    assert_eq!(server.heard()[0].range, Some(1000));
}

#[test]
fn a_server_that_ignores_the_range_sends_everything_again() {
    let server = Server::start(|_, _, stream| {
        answer(stream, "200 OK", "", content().len(), &content());
    });
    let fetch = Fetch::new();
    std::fs::write(fetch.partial(), [7; 1000]).unwrap();
    fetch.arrives(&server.hub());
}

#[test]
fn a_partial_file_longer_than_the_whole_starts_anew() {
    let server = Server::start(|request, _, stream| serve_honestly(request, stream));
    let fetch = Fetch::new();
    std::fs::write(fetch.partial(), vec![7; content().len() + 1]).unwrap();
    fetch.arrives(&server.hub());
}

#[test]
fn a_truncated_answer_is_continued() {
    let server = Server::start(|request, earlier, stream| match earlier {
        0 => answer(stream, "200 OK", "", content().len(), &content()[..123_457]),
        _ => serve_honestly(request, stream),
    });
    Fetch::new().arrives(&server.hub());
    assert_eq!(server.heard()[1].range, Some(123_457));
}

#[test]
fn a_stalled_answer_is_continued_on_another_connection() {
    let server = Server::start(|request, earlier, stream| match earlier {
        0 => {
            answer(stream, "200 OK", "", content().len(), &content()[..1000]);
            std::thread::sleep(STALL * 10);
        }
        _ => serve_honestly(request, stream),
    });
    Fetch::new().arrives(&server.hub());
    assert_eq!(server.heard().len(), 2);
}

#[test]
fn a_server_that_always_stalls_is_given_up() {
    let server = Server::start(|_, _, stream| {
        std::thread::sleep(STALL * 10);
        answer(stream, "200 OK", "", 0, b"");
    });
    Fetch::new().fails(&server.hub(), "timeout");
    assert_eq!(server.heard().len(), MAX_VAIN_ATTEMPTS as usize);
}

#[test]
fn a_server_that_gives_a_byte_at_a_time_is_given_up() {
    let server = Server::start(|request, _, stream| {
        let start = request.range.unwrap_or(0);
        let range = format!("Content-Range: bytes {start}-\r\n");
        let status = if start == 0 { "200 OK" } else { "206 Partial Content" };
        answer(stream, status, &range, 400_000, &content()[start as usize..start as usize + 1]);
    });
    Fetch::new().fails(&server.hub(), "broke 200 times");
}

#[test]
fn an_answer_longer_than_announced_is_refused() {
    let server = Server::start(|_, _, stream| {
        let mut longer = content();
        longer.push(0);
        answer(stream, "200 OK", "", longer.len(), &longer);
    });
    Fetch::new().fails(&server.hub(), "longer than");
}

#[test]
fn an_answer_that_starts_elsewhere_is_refused() {
    let server = Server::start(|_, _, stream| {
        let range = "Content-Range: bytes 5-/*\r\n";
        answer(stream, "206 Partial Content", range, 10, &[0; 10]);
    });
    let fetch = Fetch::new();
    std::fs::write(fetch.partial(), &content()[..1000]).unwrap();
    fetch.fails(&server.hub(), "starts at Some(5)");
}

#[test]
fn a_wrong_digest_is_refused_and_the_copy_removed() {
    let server = Server::start(|request, _, stream| serve_honestly(request, stream));
    let mut fetch = Fetch::new();
    fetch.file.sha256 = Some("0".repeat(64));
    fetch.fails(&server.hub(), "the hub announced 000");
    assert!(!fetch.partial().exists());
}

#[test]
fn a_busy_server_is_asked_again_and_a_refusal_is_final() {
    let busy = Server::start(|request, earlier, stream| match earlier {
        0 | 1 => answer(stream, "503 Service Unavailable", "", 0, b""),
        _ => serve_honestly(request, stream),
    });
    Fetch::new().arrives(&busy.hub());
    let closed = Server::start(|_, _, stream| answer(stream, "401 Unauthorized", "", 0, b""));
    Fetch::new().fails(&closed.hub(), "401");
    assert_eq!(closed.heard().len(), 1);
}

fn listing(body: impl Into<String>) -> Outcome<Repository> {
    let body = body.into();
    let server = Server::start(move |_, _, stream| {
        answer(stream, "200 OK", "Content-Type: application/json\r\n", body.len(), body.as_bytes());
    });
    server.hub().repository("org/repo")
}

#[test]
fn a_listing_gives_lengths_digests_and_the_licence() {
    let repository = listing(format!(
        r#"{{"sha": "{COMMIT}", "cardData": {{"license": "mit"}}, "siblings": [
            {{"rfilename": "config.json", "size": 5}},
            {{"rfilename": "model.safetensors", "size": 9, "lfs": {{"sha256": "ab", "size": 9}}}},
            {{"rfilename": "of unknown length"}}]}}"#
    ))
    .unwrap();
    assert_eq!(repository.commit, COMMIT);
    assert_eq!(repository.licence.as_deref(), Some("mit"));
    let names: Vec<_> = repository.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["config.json", "model.safetensors"]);
    assert_eq!(repository.files[1].sha256.as_deref(), Some("ab"));
}

#[test]
fn a_listing_without_end_or_sense_is_refused() {
    assert!(listing(format!(r#"{{"sha": "{COMMIT}""#)).is_err());
    assert!(listing(r#"{"sha": "../../../../../../../../etc/passwd/...."}"#).is_err());
    let endless = format!(r#"{{"sha": "{COMMIT}", "x": "{}"}}"#, " ".repeat(17 << 20));
    assert!(listing(endless).is_err());
    assert!(listing("[".repeat(100_000)).is_err());
}
