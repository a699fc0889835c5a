//! How much memory it takes to find out that a file is wrong: at most the size of the file and a
//! constant, counted by the allocator itself. One test, since the counters are of the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]
#![expect(unsafe_code, reason = "a counting allocator around the system's")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use feilun_model::gguf::{Gguf, MAX_KEYS, MAX_TENSORS};
use feilun_model::gguf_config::config_from_gguf;
use feilun_model::hf_config::config_from_json;
use feilun_model::safetensors_header::parse_header;
use support::{F32, GgufWriter, Value, safetensors_bytes, tiny_gguf, tiny_shapes};

/// The largest table of contents that is accepted at all (32,768 tensors) takes about
/// 11 MiB; the widest `config.json` takes 14, since templates want `serde_json` to preserve the
/// order of keys, which makes its values larger.
const CONSTANT: usize = 16 << 20;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: each call is passed on to the system's allocator as it came; only numbers are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that `work` held at once, beyond what was held before.
fn peak(work: impl FnOnce()) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed) - before
}

#[track_caller]
fn check(name: &str, bytes: &[u8], work: impl FnOnce(&[u8])) {
    let peak = peak(|| work(bytes));
    assert!(peak <= bytes.len() + CONSTANT, "{name}: {peak} bytes for {} of file", bytes.len());
}

fn read_gguf(bytes: &[u8]) {
    if let Ok(gguf) = Gguf::parse(bytes) {
        let _ = config_from_gguf(&gguf);
    }
}

fn read_header(bytes: &[u8]) {
    let _ = parse_header(bytes);
}

fn read_config(bytes: &[u8]) {
    let _ = config_from_json(bytes);
}

/// As many keys and tensors as there may be, as small as they can be.
fn crowded_gguf() -> Vec<u8> {
    let mut file = GgufWriter::new();
    for index in 0..MAX_KEYS {
        file.keys.push((format!("{index:x}"), Value::U8(0)));
    }
    for index in 0..MAX_TENSORS {
        file.tensor(&format!("{index:x}"), &[1, 1, 1, 1], F32);
    }
    file.build()
}

fn crowded_header() -> Vec<u8> {
    let entry = |index| format!(r#""{index:x}":{{"dtype":"F32","shape":[],"data_offsets":[0,0]}}"#);
    let entries: Vec<_> = (0..MAX_TENSORS).map(entry).collect();
    with_header(&format!("{{{}}}", entries.join(",")))
}

fn with_header(header: &str) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
}

#[test]
fn wrong_files_cost_no_more_than_their_size_and_a_constant() {
    let (bytes, fields) = tiny_gguf("gemma3").build_with_fields();
    let good = peak(|| read_gguf(&bytes));
    assert!(good < bytes.len() + (64 << 10), "a good small file took {good} bytes");
    for field in &fields {
        for number in [1_u64 << 20, u64::from(u32::MAX), 1 << 40, (1 << 63) - 1, 1 << 63, u64::MAX]
        {
            let mut changed = bytes.clone();
            changed[field.at..field.at + field.bytes]
                .copy_from_slice(&number.to_le_bytes()[..field.bytes]);
            let peak = peak(|| read_gguf(&changed));
            assert!(peak < bytes.len() + (64 << 10), "{} = {number}: {peak} bytes", field.what);
        }
    }
    check("crowded gguf", &crowded_gguf(), read_gguf);
    check("crowded header", &crowded_header(), read_header);
    let shapes = safetensors_bytes(&tiny_shapes("qwen3"));
    for length in [1_u64 << 20, 1 << 32, 1 << 63, u64::MAX] {
        let mut changed = shapes.clone();
        changed[..8].copy_from_slice(&length.to_le_bytes());
        check("header length", &changed, read_header);
    }
    let zeros = |name: &str, count: usize| {
        with_header(&format!(r#"{{"{name}":{{"dtype":"F32","shape":[{}]}}}}"#, "0,".repeat(count)))
    };
    check("a long shape", &zeros("a", 1 << 20), read_header);
    check("a long name", &zeros(&"n".repeat(3 << 20), 1), read_header);
    check("deep JSON", &with_header(&"{\"a\":".repeat(500_000)), read_header);
    // The largest `config.json` that is read at all, of values as small as they can be.
    check("wide JSON", format!("{{\"a\":[{}[]]}}", "[],".repeat(87_000)).as_bytes(), read_config);
    check("deep JSON", "[".repeat(256 << 10).as_bytes(), read_config);
}
