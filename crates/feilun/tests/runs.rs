//! `feilun runs`, on run directories made here.
//!
//! New or changed outputs: run with `INSTA_UPDATE=always` and read the difference.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// Writes a run of `num_done` of 40 steps whose loss falls to about `floor`.
fn write_run(data: &Path, name: &str, rate: f64, floor: f64, num_done: u32, end: &str) {
    let folder = data.join("runs").join(name);
    let checkpoint = folder.join("checkpoints").join("step-00000020");
    fs::create_dir_all(checkpoint).unwrap();
    let config = format!(
        "{{\"base\":\"tiny\",\"training\":{{\"seed\":1,\"num_steps\":40,\"learning_rate\":{rate}}}}}"
    );
    fs::write(folder.join("config.json"), config).unwrap();
    let mut lines = vec![
        r#"{"kind":"start","step":0,"pid":1,"unix_seconds":1700000000,"num_steps":40,"plan":{"seconds":20.0,"tokens_per_second":210.0,"peak_bytes":1048576}}"#
            .to_owned(),
    ];
    for step in 1..=num_done {
        let loss = floor + 3.0 * (-f64::from(step) / 8.0).exp();
        let skipped = if step == 17 { r#""loss""# } else { "null" };
        lines.push(format!(
            r#"{{"kind":"step","step":{step},"loss":{loss},"gradient_norm":1.0,"learning_rate":{rate},"num_tokens":100,"seconds":0.5,"skipped":{skipped},"sums":{{"loss":{loss},"nats":1.0,"num_tokens":90,"num_pairs":0,"num_correct":0,"num_desirable":0,"num_undesirable":0,"reward_chosen":0.0,"reward_rejected":0.0,"reference_point":0.0}}}}"#
        ));
        if step % 10 == 0 {
            let loss = loss + 0.25;
            lines.push(format!(
                r#"{{"kind":"evaluation","step":{step},"loss":{loss},"nats_per_token":{loss},"seconds":0.1}}"#
            ));
        }
    }
    lines.push(end.to_owned());
    fs::write(folder.join("metrics.jsonl"), lines.join("\n")).unwrap();
}

const FINISHED: &str = concat!(
    r#"{"kind":"end","step":40,"is_finished":true,"score":{"plan":{"seconds":20.0,"#,
    r#""tokens_per_second":210.0,"peak_bytes":1048576},"seconds":21.0,"#,
    r#""tokens_per_second":200.0,"peak_bytes":1153434}}"#,
    "\n"
);
const REFUSED: &str = concat!(
    r#"{"kind":"refused","step":25,"reason":"the loss of step 25 is NaN, expected a finite "#,
    r#"number; row 1 of the batch: a.jsonl:7"}"#,
    "\n"
);
/// As a kill leaves it.
const TORN: &str = r#"{"kind":"step","step":31,"lo"#;

fn data_with_runs() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    write_run(data.path(), "full", 0.0001, 1.0, 40, FINISHED);
    write_run(data.path(), "lora", 0.001, 1.5, 30, TORN);
    write_run(data.path(), "hot", 0.1, 2.0, 24, REFUSED);
    data
}

fn run(data: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feilun"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("FEILUN_DATA_DIR", data);
    let output = command.args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!(
        "$ feilun {}\n{}--- stderr\n{}--- exit {}",
        args.join(" "),
        text(&output.stdout),
        text(&output.stderr).replace(&data.display().to_string(), "DATA"),
        output.status.code().unwrap()
    )
}

/// The JSON between the command and the other stream.
fn json(output: &str) -> serde_json::Value {
    let text = output.split_once('\n').unwrap().1.split_once("--- stderr").unwrap().0;
    serde_json::from_str(text).unwrap()
}

#[test]
fn list() {
    let data = data_with_runs();
    insta::assert_snapshot!("runs-list", run(data.path(), &["runs"]));
    let found = json(&run(data.path(), &["runs", "--json"]));
    let states: Vec<_> = found.as_array().unwrap().iter().map(|run| &run["state"]).collect();
    assert_eq!(states, ["finished", "refused", "broken_off"]);
    assert_eq!(found[0]["tokens_per_second"], 200.0);
}

#[test]
fn show() {
    let data = data_with_runs();
    insta::assert_snapshot!("runs-show", run(data.path(), &["runs", "show", "full"]));
    insta::assert_snapshot!("runs-show-refused", run(data.path(), &["runs", "show", "hot"]));
    let found = json(&run(data.path(), &["runs", "show", "full", "--json"]));
    assert_eq!(found["run"]["step"], 40);
    assert_eq!(found["losses"].as_array().unwrap().len(), 40);
    assert_eq!(found["held_out_losses"].as_array().unwrap().len(), 4);
    assert_eq!(found["config"]["training.learning_rate"], 0.0001);
}

#[test]
fn compare() {
    let data = data_with_runs();
    insta::assert_snapshot!("runs-compare", run(data.path(), &["runs", "compare", "full", "lora"]));
    let found = json(&run(data.path(), &["runs", "compare", "full", "lora", "--json"]));
    assert_eq!(found["runs"][1]["state"], "broken_off");
    assert_eq!(found["settings"]["training.learning_rate"], serde_json::json!([0.0001, 0.001]));
    assert_eq!(found["settings"].as_object().unwrap().len(), 1);
}

#[test]
fn charts_are_svg_files() {
    let data = data_with_runs();
    let file = data.path().join("loss.svg");
    let svg = file.to_str().unwrap();
    let output = run(data.path(), &["runs", "compare", "full", "hot", "--svg", svg]);
    assert!(output.ends_with("--- stderr\nwrote DATA/loss.svg\n--- exit 0"), "{output}");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("<svg ") && text.trim_end().ends_with("</svg>"), "{text}");
    for name in ["full", "hot", "step", "loss"] {
        assert!(text.lines().any(|line| line.trim() == name), "no `{name}` in {text}");
    }
    assert!(text.matches("<poly").count() >= 2, "{text}");
}

#[test]
fn wrong_names_empty_runs_and_damage() {
    let data = tempfile::tempdir().unwrap();
    insta::assert_snapshot!("runs-none", run(data.path(), &["runs"]));
    insta::assert_snapshot!("runs-unknown", run(data.path(), &["runs", "show", "nothing"]));
    let folder = data.path().join("runs").join("begun");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.json"), "{}").unwrap();
    insta::assert_snapshot!("runs-begun", run(data.path(), &["runs", "show", "begun"]));
    let damaged = data.path().join("runs").join("damaged");
    fs::create_dir_all(&damaged).unwrap();
    fs::write(damaged.join("config.json"), "{").unwrap();
    insta::assert_snapshot!("runs-damaged", run(data.path(), &["runs"]));
}

/// A run whose process is alive holds the lock.
#[test]
fn a_running_process_is_named() {
    let data = data_with_runs();
    let path = data.path().join("runs").join("lora").join("lock");
    fs::write(&path, "4711\n").unwrap();
    let lock = File::open(&path).unwrap();
    lock.lock().unwrap();
    let output = run(data.path(), &["runs", "show", "lora"]);
    assert!(output.contains("running, process 4711"), "{output}");
    drop(lock);
    let output = run(data.path(), &["runs", "show", "lora"]);
    assert!(output.contains("broken off: the process was killed or failed"), "{output}");
}
