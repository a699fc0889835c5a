//! How a server is set up. Whoever starts it reads files, environment and command line; here are
//! only values, all with a bound.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where it listens. Beyond loopback it starts only if the store has a key that works.
    pub address: SocketAddr,
    /// Names of it besides `localhost` and its address.
    pub hosts: Vec<String>,
    /// Web pages of other origins that may use it, as `https://app.example`.
    pub origins: Vec<String>,
    /// Without it the server speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Record turns. Off only to measure what it costs.
    pub capture: bool,
    /// Bounds of everything that a caller can make large or long.
    pub limits: Limits,
}

impl ServerConfig {
    /// Defaults, for an address.
    pub fn new(address: SocketAddr) -> ServerConfig {
        ServerConfig {
            address,
            hosts: Vec::new(),
            origins: Vec::new(),
            tls: None,
            capture: true,
            limits: Limits::default(),
        }
    }
}

/// A certificate and its key, both in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, followed by those that vouch for it.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Bounds of what callers send, and of how long they take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest body.
    pub body_bytes_max: usize,
    /// Longest URL.
    pub url_bytes_max: usize,
    /// Most bytes of the head of a request.
    pub head_bytes_max: usize,
    /// Most connections; more wait until one ends.
    pub connections_max: usize,
    /// Most requests whose bodies are read and prepared at once; more wait.
    pub preparing_max: usize,
    /// Largest file that is uploaded.
    pub file_bytes_max: u64,
    /// Most files of one user or key.
    pub files_max: usize,
    /// Most bytes of all files of one user or key.
    pub files_bytes_max: u64,
    /// Most uploads at once; more are refused.
    pub uploads_max: usize,
    /// Until an upload must be there, however large it is. While it comes, no part of it may
    /// take longer than `body_timeout`.
    pub upload_timeout: Duration,
    /// Most fine-tuning jobs that wait; more are refused.
    pub jobs_waiting_max: usize,
    /// How long a training process may take to save its state when it is asked to end.
    pub training_patience: Duration,
    /// Until the head of a request must be there, and until a TLS handshake must be done.
    pub head_timeout: Duration,
    /// Until the body must be there.
    pub body_timeout: Duration,
    /// How long a client may take no byte of an answer before it counts as gone.
    pub write_timeout: Duration,
    /// How long one request may generate.
    pub generation_timeout: Duration,
    /// Most tokens of an answer where the caller of a chat gives no number.
    pub answer_tokens_default: usize,
    /// How long answers may take to end when the server stops.
    pub shutdown_grace: Duration,
    /// Between signs of life in a stream that has nothing to say.
    pub keep_alive: Duration,
    /// How long a browser stays logged in.
    pub session_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes_max: 4 << 20,
            url_bytes_max: 2 << 10,
            head_bytes_max: 16 << 10,
            connections_max: 2048,
            preparing_max: 64,
            file_bytes_max: 512 << 20,
            files_max: 1000,
            files_bytes_max: 8 << 30,
            uploads_max: 4,
            upload_timeout: Duration::from_secs(3600),
            jobs_waiting_max: 32,
            training_patience: Duration::from_secs(20),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            generation_timeout: Duration::from_secs(900),
            answer_tokens_default: 4096,
            shutdown_grace: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            session_time: Duration::from_secs(12 * 60 * 60),
        }
    }
}
