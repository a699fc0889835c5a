//! The least of an HTTP client: one request on one connection, with the time of each token.
//!
//! It takes the same from both servers, in OpenAI's shape, and nothing of it may cost much: it
//! runs on the machine that it measures.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// No answer takes this long.
const PATIENCE: Duration = Duration::from_secs(300);
/// Heads of answers are short.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// A stream, read to its end.
#[derive(Debug, Default)]
pub(crate) struct Streamed {
    /// Until the first piece of text.
    pub(crate) first: Duration,
    /// Between pieces of text.
    pub(crate) gaps: Vec<Duration>,
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    /// The `id` of the answer.
    pub(crate) id: String,
}

/// Asks for a chat as a stream.
pub(crate) fn stream(address: SocketAddr, body: &Value) -> anyhow::Result<Streamed> {
    let start = Instant::now();
    let reader = post(address, "/v1/chat/completions", body)?;
    let mut streamed = Streamed::default();
    let mut last = None;
    for line in BufReader::new(reader).lines() {
        let line = line.context("the stream broke off")?;
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if data == "[DONE]" {
            return Ok(streamed);
        }
        let event: Value = serde_json::from_str(data).with_context(|| data.to_owned())?;
        if !event["error"].is_null() {
            bail!("the stream ends with {data}");
        }
        let text = event["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        if !text.is_empty() {
            let now = Instant::now();
            match last.replace(now) {
                None => streamed.first = now - start,
                Some(before) => streamed.gaps.push(now - before),
            }
        }
        if let Some(tokens) = event["usage"]["completion_tokens"].as_u64() {
            streamed.completion_tokens = tokens;
            streamed.prompt_tokens = event["usage"]["prompt_tokens"].as_u64().unwrap_or_default();
        }
        if let Some(id) = event["id"].as_str() {
            id.clone_into(&mut streamed.id);
        }
    }
    bail!("the stream ends without [DONE]")
}

/// Posts a body and reads all of the answer.
pub(crate) fn ask(address: SocketAddr, path: &str, body: &Value) -> anyhow::Result<String> {
    let mut text = String::new();
    post(address, path, body)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Gets a page.
pub(crate) fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    send(address, &head("GET", address, path))?.read_to_string(&mut text)?;
    Ok(text)
}

/// A whole request, for those who send a part of it or do not wait for the answer.
pub(crate) fn request(address: SocketAddr, path: &str, body: &Value) -> String {
    let body = body.to_string();
    let kind = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    head("POST", address, path).replace("\r\n\r\n", &format!("\r\n{kind}\r\n{body}"))
}

fn post(address: SocketAddr, path: &str, body: &Value) -> anyhow::Result<Box<dyn Read>> {
    send(address, &request(address, path, body))
}

fn head(method: &str, address: SocketAddr, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
}

/// Sends a request and reads the head of the answer; what is returned is its body.
fn send(address: SocketAddr, request: &str) -> anyhow::Result<Box<dyn Read>> {
    let mut socket = TcpStream::connect(address).context("cannot connect")?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(socket);
    let mut limited = reader.by_ref().take(HEAD_BYTES_MAX);
    let (mut status, mut is_chunked) = (String::new(), false);
    limited.read_line(&mut status)?;
    let mut length = None;
    loop {
        let mut line = String::new();
        limited.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        is_chunked |= line == "transfer-encoding: chunked";
        length =
            line.strip_prefix("content-length: ").and_then(|text| text.parse().ok()).or(length);
    }
    let mut body: Box<dyn Read> = match length {
        _ if is_chunked => Box::new(Chunked { inner: reader, left: 0, ended: false }),
        Some(length) => Box::new(reader.take(length)),
        None => Box::new(reader),
    };
    let is_success = status.split(' ').nth(1).is_some_and(|code| code.starts_with('2'));
    if !is_success {
        let mut text = String::new();
        // What it says of the refusal, if it does.
        let _ = body.read_to_string(&mut text);
        bail!("{}: {text}", status.trim_end());
    }
    Ok(body)
}

/// A body in chunks (RFC 9112, section 7.1).
struct Chunked<R> {
    inner: R,
    /// Of the chunk that is being read.
    left: u64,
    ended: bool,
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.left == 0 && !self.ended {
            let mut line = String::new();
            if self.inner.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let size = line.trim_end().split(';').next().unwrap_or_default();
            // The line end behind the chunk before.
            if size.is_empty() {
                continue;
            }
            self.left = u64::from_str_radix(size, 16)
                .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
            self.ended = self.left == 0;
        }
        let length = (&mut self.inner).take(self.left).read(buffer)?;
        self.left -= length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() -> anyhow::Result<()> {
        let bytes = b"4\r\ndata\r\n6;x=y\r\n: one\n\r\n0\r\n\r\n";
        let mut text = String::new();
        let mut chunked = Chunked { inner: &bytes[..], left: 0, ended: false };
        chunked.read_to_string(&mut text)?;
        assert_eq!(text, "data: one\n");
        // Cut off before its end.
        let mut chunked = Chunked { inner: &bytes[..9], left: 0, ended: false };
        assert!(chunked.read_to_string(&mut text).is_err());
        Ok(())
    }

    #[test]
    fn a_request_has_its_head_and_its_body() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let request = request(address, "/x", &serde_json::json!({}));
        assert!(request.starts_with("POST /x HTTP/1.1\r\nHost: 127.0.0.1:80\r\n"));
        assert!(request.ends_with("\r\nContent-Length: 2\r\n\r\n{}"));
    }
}
