//! Model files that lie, given to the commands that would pass their content on; and folders
//! that bring code along.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

#[path = "support/served.rs"]
mod up;

use up::{feilun, model_file};

/// A file that says more than it holds made another program write out what lay behind it in
/// memory (CVE-2026-7482).
#[test]
fn what_a_file_does_not_hold_is_in_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(model_file()).unwrap();
    let short = folder.path().join("short.gguf");
    fs::write(&short, &whole[..whole.len() - 1_000_000]).unwrap();
    let short = short.display().to_string();
    let out = folder.path().join("out").display().to_string();
    for args in [
        &["quantize", "--type", "Q8_0", "--out", "other", "--model", &short][..],
        &["export", "--format", "gguf", "--out", &out, "--model", &short],
        &["export", "--format", "safetensors", "--out", &out, "--model", &short],
        &["complete", "--prompt", "x", "--model", &short],
        &["pull", &short],
        &["up", "--listen", "127.0.0.1:0", "--model", &short],
    ] {
        let output = feilun(folder.path(), args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("short.gguf"), "{args:?}: {said}");
        assert!(!Path::new(&out).exists(), "{args:?} wrote something");
    }
    let models = folder.path().join("models");
    assert!(!models.join("other").exists() && !models.join("short").exists());
}

/// A model's folder can name Python classes to be loaded with it, and hold pickles, which are
/// programs (CVE-2026-22807, CVE-2025-32444).
#[test]
fn code_that_comes_with_a_model_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../feilun-model/tests/fixtures/llama");
    let (model, trace) = (folder.path().join("model"), folder.path().join("trace"));
    fs::create_dir(&model).unwrap();
    fs::copy(fixture.join("model.safetensors"), model.join("model.safetensors")).unwrap();
    let config = fs::read_to_string(fixture.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let class = "modeling_evil.Evil";
    config["auto_map"] = serde_json::json!({"AutoConfig": class, "AutoModelForCausalLM": class});
    fs::write(model.join("config.json"), config.to_string()).unwrap();
    let code = format!("open({:?}, 'w').write('ran')\n", trace.display().to_string());
    fs::write(model.join("modeling_evil.py"), &code).unwrap();
    fs::write(model.join("setup.py"), &code).unwrap();
    // A pickle that calls `exec`.
    let pickle = format!("cbuiltins\nexec\n(S{code:?}\ntR.");
    fs::write(model.join("pytorch_model.bin"), &pickle).unwrap();
    let path = model.display().to_string();
    let out = folder.path().join("out").display().to_string();
    for args in [
        &["export", "--format", "gguf", "--out", &out, "--model", &path][..],
        &["pull", &path],
        &["models"],
    ] {
        let output = feilun(folder.path(), args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{args:?}: {said}");
        assert!(!trace.exists(), "{args:?} ran code of the model");
    }
    // A folder of nothing but a pickle is no model.
    fs::remove_file(model.join("model.safetensors")).unwrap();
    let args = ["complete", "--prompt", "x", "--model", &path];
    let output = feilun(folder.path(), &args).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!trace.exists());
}
