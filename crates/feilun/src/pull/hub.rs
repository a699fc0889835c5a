//! A model hub over HTTPS: what a repository holds, and its files, resumable and checked.
//!
//! The first request fixes the commit; every file is then asked for at that commit, so a
//! repository that changes meanwhile cannot mix two models. The token goes to the hub's own host
//! alone: a redirect to another host is followed without it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::manifest::{FileEntry, sha256_of};
use crate::pull::progress::Progress;

/// The list of a repository's files is never longer than this.
const MAX_LISTING_BYTES: u64 = 16 << 20;
/// Without a byte for so long, a connection counts as dead.
const STALL_SECONDS: u64 = 30;
/// Attempts that bring no byte, one after another, before we give up.
const MAX_VAIN_ATTEMPTS: u32 = 5;
/// Attempts in all: a server that drops every connection after one byte ends too.
const MAX_ATTEMPTS: u32 = 200;

/// A hub and how to talk to it.
pub(crate) struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    /// Times the number of vain attempts; shorter in tests.
    pause: Duration,
}

/// A repository at one commit.
#[derive(Debug)]
pub(crate) struct Repository {
    name: String,
    pub(crate) commit: String,
    pub(crate) licence: Option<String>,
    pub(crate) files: Vec<RemoteFile>,
}

/// A file as the hub announces it.
#[derive(Clone, Debug)]
pub(crate) struct RemoteFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Known for large files.
    sha256: Option<String>,
}

/// The hub's answer about a repository; of its many fields, those we use.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(rename = "cardData")]
    card: Option<Card>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: String,
    size: u64,
}

#[derive(Deserialize)]
struct Card {
    license: Option<serde_json::Value>,
}

impl Hub {
    pub(crate) fn new(endpoint: &str, token: Option<&str>) -> Hub {
        Hub::with_patience(endpoint, token, Duration::from_secs(STALL_SECONDS))
    }

    fn with_patience(endpoint: &str, token: Option<&str>, stall: Duration) -> Hub {
        let agent = Agent::config_builder()
            .https_only(endpoint.starts_with("https://"))
            .http_status_as_error(false)
            .max_redirects(5)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("feilun/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(stall))
            .timeout_recv_response(Some(stall))
            .timeout_per_read(Some(stall))
            .build()
            .new_agent();
        Hub {
            agent,
            endpoint: endpoint.to_owned(),
            token: token.map(str::to_owned),
            pause: stall / 30,
        }
    }

    /// What `name` (`ORG/REPO`) holds at its main branch now.
    pub(crate) fn repository(&self, name: &str) -> Outcome<Repository> {
        let address = format!("{}/api/models/{name}/revision/main?blobs=true", self.endpoint);
        let mut response = self.get(&address, None).doing(|| format!("cannot ask {address}"))?;
        self.require(response.status(), &[StatusCode::OK], name)?;
        let listing: Listing = response
            .body_mut()
            .with_config()
            .limit(MAX_LISTING_BYTES)
            .read_json()
            .doing(|| format!("{address}: the answer is no listing of a repository"))?;
        if listing.sha.len() != 40 || !listing.sha.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(Failure::failed(format!("{address}: `{}` is no commit", listing.sha)));
        }
        let licence = listing.card.and_then(|card| card.license?.as_str().map(str::to_owned));
        let files = listing.siblings.into_iter().filter_map(remote_file).collect();
        Ok(Repository { name: name.to_owned(), commit: listing.sha, licence, files })
    }

    /// Brings one file to `target`, by way of `partial`, which is taken up where it ends.
    pub(crate) fn fetch(
        &self,
        repository: &Repository,
        file: &RemoteFile,
        partial: &Path,
        target: &Path,
    ) -> Outcome<FileEntry> {
        let progress = Progress::start(&format!("fetching {}", file.name), file.bytes)?;
        let address = format!(
            "{}/{}/resolve/{}/{}",
            self.endpoint, repository.name, repository.commit, file.name
        );
        self.complete(&address, repository, file, partial, &progress)
            .doing(|| format!("cannot fetch {address}"))
            .hint("the same command takes it up where it stopped")?;
        let sha256 = sha256_of(partial, |_| ())?;
        if let Some(expected) = file.sha256.as_ref().filter(|&expected| *expected != sha256) {
            std::fs::remove_file(partial)?;
            return Err(Failure::failed(format!(
                "{}: sha256 is {sha256}, the hub announced {expected}",
                file.name
            ))
            .hint("the copy was removed: try again, and if it stays so, distrust the source"));
        }
        std::fs::rename(partial, target)?;
        Ok(FileEntry { name: file.name.clone(), bytes: file.bytes, sha256 })
    }

    /// Repeats attempts until `partial` has all its bytes.
    fn complete(
        &self,
        address: &str,
        repository: &Repository,
        file: &RemoteFile,
        partial: &Path,
        progress: &Progress,
    ) -> Outcome {
        let mut vain = 0;
        for _ in 0..MAX_ATTEMPTS {
            let before = length(partial);
            let outcome = self.attempt(address, repository, file, partial, progress);
            let after = length(partial);
            match outcome {
                Ok(()) if after == file.bytes => return Ok(()),
                Err(Attempt::Final(failure)) => return Err(failure),
                Ok(()) | Err(Attempt::Again(_)) if after > before => vain = 0,
                outcome => {
                    vain += 1;
                    if vain == MAX_VAIN_ATTEMPTS {
                        let short =
                            || Failure::failed(format!("{after} bytes, expected {}", file.bytes));
                        return Err(match outcome {
                            Err(Attempt::Again(failure)) => failure,
                            _ => short(),
                        });
                    }
                    std::thread::sleep(self.pause * vain);
                }
            }
        }
        Err(Failure::failed(format!("the connection broke {MAX_ATTEMPTS} times")))
    }

    /// One request, for what `partial` lacks.
    fn attempt(
        &self,
        address: &str,
        repository: &Repository,
        file: &RemoteFile,
        partial: &Path,
        progress: &Progress,
    ) -> Result<(), Attempt> {
        let mut there = length(partial);
        if there > file.bytes {
            std::fs::remove_file(partial)?;
            there = 0;
        }
        if there == file.bytes && file.bytes > 0 {
            return Ok(());
        }
        let range = (there > 0).then(|| format!("bytes={there}-"));
        let mut response = self.get(address, range.as_deref()).map_err(Attempt::Again)?;
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Attempt::Again(Failure::failed(format!("the hub answered {status}"))));
        }
        let whole_or_rest = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        self.require(status, &whole_or_rest, &repository.name).map_err(Attempt::Final)?;
        // A server may ignore the range and send everything, or send another range.
        let start =
            if status == StatusCode::PARTIAL_CONTENT { range_start(&response) } else { Some(0) };
        if start != Some(there) && start != Some(0) {
            return Err(Attempt::Final(Failure::failed(format!(
                "asked for bytes from {there} on, the answer starts at {start:?}"
            ))));
        }
        let start = start.unwrap_or(0);
        let mut output =
            OpenOptions::new().write(true).create(true).truncate(false).open(partial)?;
        output.set_len(start)?;
        output.seek(SeekFrom::End(0))?;
        progress.set(start);
        receive(&mut response, &mut output, file.bytes - start, progress)?;
        output.sync_all()?;
        Ok(())
    }

    fn get(&self, address: &str, range: Option<&str>) -> Outcome<Response<Body>> {
        // Compressed answers would make ranges and lengths meaningless.
        let mut request = self.agent.get(address).header(header::ACCEPT_ENCODING, "identity");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        Ok(request.call()?)
    }

    fn require(&self, found: StatusCode, expected: &[StatusCode], repository: &str) -> Outcome {
        if expected.contains(&found) {
            return Ok(());
        }
        let failure = Failure::failed(format!("the hub answered {found}"));
        Err(match found {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => failure.hint(format!(
                "if {}/{repository} exists, it wants a token (set HF_TOKEN) and perhaps that you \
                 accept its terms there",
                self.endpoint
            )),
            StatusCode::NOT_FOUND => failure.hint("is the repository's name spelt right?"),
            _ => failure,
        })
    }
}

impl Repository {
    pub(crate) fn file(&self, name: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// How an attempt failed: for good, or perhaps not the next time.
enum Attempt {
    Again(Failure),
    Final(Failure),
}

impl From<std::io::Error> for Attempt {
    fn from(error: std::io::Error) -> Attempt {
        Attempt::Final(error.into())
    }
}

fn remote_file(sibling: Sibling) -> Option<RemoteFile> {
    let (bytes, sha256) = match sibling.lfs {
        Some(large) => (large.size, Some(large.sha256)),
        None => (sibling.size?, None),
    };
    Some(RemoteFile { name: sibling.rfilename, bytes, sha256 })
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// The first byte's position in `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response<Body>) -> Option<u64> {
    let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// Writes at most `wanted` bytes; more is an error, fewer is for the next attempt.
fn receive(
    response: &mut Response<Body>,
    output: &mut File,
    wanted: u64,
    progress: &Progress,
) -> Result<(), Attempt> {
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 18];
    let mut received = 0;
    loop {
        let num_bytes =
            body.read(&mut buffer).map_err(|error| Attempt::Again(Failure::from(error)))?;
        if num_bytes == 0 {
            return Ok(());
        }
        received += num_bytes as u64;
        if received > wanted {
            return Err(Attempt::Final(Failure::failed(format!(
                "the answer is longer than the {wanted} bytes that were announced"
            ))));
        }
        output.write_all(&buffer[..num_bytes])?;
        progress.add(num_bytes as u64);
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
