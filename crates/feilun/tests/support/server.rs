//! A small HTTP server for tests: it answers as a test says, also wrongly, and remembers what
//! it was asked.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server heard, of the parts that matter here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<u64>,
}

pub(crate) struct Server {
    /// Without the host, so that a test can reach it under two names.
    port: u16,
    heard: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request with `respond(request, number of earlier requests, connection)`.
    pub(crate) fn start(
        respond: impl Fn(&Request, usize, &mut TcpStream) + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        let respond = Arc::new(respond);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, respond) = (Arc::clone(&log), Arc::clone(&respond));
                // A thread each: a stalling answer must not stall the next.
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some(request) = read_request(&stream) else { return };
                    let earlier = {
                        let mut log = log.lock().unwrap();
                        log.push(request.clone());
                        log.len() - 1
                    };
                    respond(&request, earlier, &mut stream);
                });
            }
        });
        Server { port, heard }
    }

    pub(crate) fn address(&self, host: &str) -> String {
        format!("http://{host}:{}", self.port)
    }

    pub(crate) fn heard(&self) -> Vec<Request> {
        self.heard.lock().unwrap().clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut request = Request { path, ..Request::default() };
    for line in lines {
        let line = line.ok()?.to_lowercase();
        match line.split_once(": ") {
            Some(("authorization", value)) => request.authorization = Some(value.to_owned()),
            Some(("range", value)) => {
                let start = value.strip_prefix("bytes=")?.strip_suffix('-')?;
                request.range = Some(start.parse().ok()?);
            }
            Some(_) => {}
            None => break,
        }
    }
    Some(request)
}

/// An answer whose head announces `length` bytes and whose body is `body`.
pub(crate) fn answer(
    stream: &mut TcpStream,
    status: &str,
    headers: &str,
    length: usize,
    body: &[u8],
) {
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    // The client may have hung up, as it should on some of these answers.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}
