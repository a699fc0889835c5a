//! A world small enough to train in: a vocabulary of bytes, a few texts, a few examples, and the
//! program.
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const TEMPLATE: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A folder with everything in it; it is the data directory, too.
pub(crate) struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> World {
        let world = World { folder: tempfile::tempdir().unwrap() };
        write_tokenizer(&world.path("bytes"));
        fs::create_dir(world.path("texts")).unwrap();
        for number in 0..40 {
            let text = format!(
                "Number {number} has the square {}, and the next is {}.\n",
                number * number,
                number + 1
            );
            fs::write(world.path(&format!("texts/{number}.txt")), text.repeat(6)).unwrap();
        }
        world
    }

    /// The same with a model to begin from, `base`.
    pub(crate) fn with_base() -> World {
        let world = World::new();
        world.json(&world.pretrain("base", &["--tokens", "1024", "--held-out", "0"]));
        let answer = |number: usize| format!("It is {}.", number * number);
        let question = |number: usize| json!({"role": "user", "content": format!("{number}²?")});
        let (mut chats, mut pairs) = (String::new(), String::new());
        for number in 0..60 {
            let user = question(number);
            let says = |text: String| json!({"role": "assistant", "content": text});
            let chat = json!({"messages": [&user, says(answer(number))]});
            let pair = json!({
                "prompt": [&user],
                "chosen": [says(answer(number))],
                "rejected": [says("No idea.".to_owned())],
            });
            chats += &format!("{chat}\n");
            pairs += &format!("{pair}\n");
        }
        fs::write(world.path("chats.jsonl"), chats).unwrap();
        fs::write(world.path("pairs.jsonl"), pairs).unwrap();
        world
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    pub(crate) fn text(&self, inside: &str) -> String {
        self.path(inside).display().to_string()
    }

    /// The arguments of a small pretraining run.
    pub(crate) fn pretrain(&self, name: &str, more: &[&str]) -> Vec<String> {
        let (texts, bytes) = (self.text("texts"), self.text("bytes"));
        let fixed = ["pretrain", "--json", "--depth", "1", "--threads", "1", "--context", "64"];
        let ours = ["--batch-tokens", "128", "--data", &texts, "--tokenizer", &bytes];
        words(&[&fixed[..], &ours, &["--out", name], more].concat())
    }

    /// The arguments of a small tuning run on `base`.
    pub(crate) fn tune(&self, name: &str, data: &str, more: &[&str]) -> Vec<String> {
        let (base, data) = (self.text("runs/base/model"), self.text(data));
        let fixed = ["tune", "--json", "--threads", "1", "--context", "64"];
        let ours = ["--batch-tokens", "128", "--base", &base, "--data", &data, "--out", name];
        words(&[&fixed, &ours[..], more].concat())
    }

    /// The program, with nothing of the tester's environment but the path.
    pub(crate) fn command(&self, args: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feilun"));
        self.set_up(&mut command);
        command.args(args);
        command
    }

    pub(crate) fn set_up(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("FEILUN_DATA_DIR", self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    }

    pub(crate) fn run(&self, args: &[String]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command that must work prints.
    #[track_caller]
    pub(crate) fn json(&self, args: &[String]) -> Value {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a command that must fail says.
    #[track_caller]
    pub(crate) fn refusal(&self, args: &[String], code: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", said(&output));
        said(&output)
    }
}

pub(crate) fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(|&word| word.to_owned()).collect()
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A token for each byte, and the two of ChatML.
fn write_tokenizer(folder: &Path) {
    let character = |byte: u8| {
        let code = match byte {
            0..=32 => 0x100 + u32::from(byte),
            127..=160 => 0x121 + u32::from(byte) - 127,
            173 => 0x143,
            _ => u32::from(byte),
        };
        char::from_u32(code).unwrap().to_string()
    };
    let vocab: serde_json::Map<String, Value> =
        (0..=255).map(|byte| (character(byte), json!(byte))).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(256, "<|im_start|>"), special(257, "<|im_end|>")],
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": null,
        "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": []},
    });
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({"eos_token": "<|im_end|>"});
    fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    fs::write(folder.join("chat_template.jinja"), TEMPLATE).unwrap();
}
