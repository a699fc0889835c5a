//! Opening a file must not cost a noticeable part of the start: the vocabulary of Gemma 3 has
//! 262,144 strings, and nothing is copied of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use feilun_model::ModelFiles;

#[test]
fn gemma3_opens_at_once() {
    let folder = std::env::var_os("FEILUN_TEST_MODELS")
        .expect("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    let path = PathBuf::from(folder).join("gemma3.gguf");
    let open = || {
        let start = Instant::now();
        let files = ModelFiles::open(&path).unwrap();
        (start.elapsed(), files.config().vocab_size)
    };
    let times: Vec<Duration> = (0..5).map(|_| open().0).collect();
    // A test machine may be busy; alone it takes 2 to 4 ms.
    assert!(times.iter().min().unwrap() < &Duration::from_millis(100), "{times:?}");
}
