//! `feilun doctor`: what this machine has, what Feilun makes of it, what is wrong, and what to
//! do about it. Each check is one function from the session to one finding.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use feilun_kernels::machine::measure_memory_bandwidth;
use feilun_kernels::{Isa, Pool};
use serde::Serialize;

use crate::commands::Session;
use crate::failure::{Failure, Outcome};
use crate::{kernel_choice, machine, output, stored_model};

/// Check this machine: what it has, what will be used, what is wrong
///
/// Exits with 1 when something is broken.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  feilun doctor
  feilun doctor --json")]
pub(crate) struct Args {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// What one check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    found: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding { check, status: Status::Ok, found: found.into(), hint: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Finding {
        let hint = Some(hint.into());
        Finding { status: Status::Warn, hint, ..Finding::ok(check, found) }
    }

    fn fail(check: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { status: Status::Fail, ..Finding::warn(check, found, hint) }
    }
}

/// Below this the smallest catalog model does not fit with its caches.
const MIN_MEMORY_BYTES: u64 = 512 << 20;
/// Below this a pull of the smallest catalog model fails.
const MIN_DISK_BYTES: u64 = 512 << 20;
const BANDWIDTH_SECONDS: f64 = 0.3;
/// What the bandwidth measurement needs for each thread.
const BANDWIDTH_BYTES_PER_THREAD: u64 = 256 << 20;

pub(crate) fn run(args: &Args, session: &Session) -> Outcome {
    let checks: [fn(&Session) -> Finding; 11] = [
        processor,
        instructions,
        threads,
        kernels,
        memory,
        bandwidth,
        huge_pages,
        data_dir,
        disk,
        python,
        models,
    ];
    let mut num_failed = 0;
    let mut findings = Vec::new();
    for check in checks {
        let finding = check(session);
        num_failed += usize::from(finding.status == Status::Fail);
        if !args.json {
            print(&finding)?;
        }
        findings.push(finding);
    }
    if args.json {
        output::json(&serde_json::json!({ "ok": num_failed == 0, "findings": findings }))?;
    }
    match num_failed {
        0 => Ok(()),
        1 => Err(Failure::failed("one check failed")),
        several => Err(Failure::failed(format!("{several} checks failed"))),
    }
}

fn print(finding: &Finding) -> Outcome {
    let status = match finding.status {
        Status::Ok => output::green("ok  "),
        Status::Warn => output::yellow("warn"),
        Status::Fail => output::red("FAIL"),
    };
    output::data(format!("{status}  {:<16}{}", finding.check, finding.found))?;
    match &finding.hint {
        Some(hint) => output::data(format!("      {:<16}hint: {hint}", "")),
        None => Ok(()),
    }
}

fn processor(_: &Session) -> Finding {
    Finding::ok("processor", format!("{} ({})", machine::processor(), std::env::consts::ARCH))
}

fn instructions(session: &Session) -> Finding {
    const CHECK: &str = "instructions";
    let paths = Isa::available().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
    match machine::isa(&session.environment) {
        Err(failure) => Finding::fail(
            CHECK,
            failure.to_string(),
            format!("set FEILUN_ISA to one of {paths}, or unset it"),
        ),
        Ok(isa) if session.environment.isa.is_some() => {
            let found =
                format!("{} will be used, as FEILUN_ISA says; available: {paths}", isa.name());
            if isa == Isa::best() {
                return Finding::ok(CHECK, found);
            }
            Finding::warn(CHECK, found, format!("unset FEILUN_ISA to use {}", Isa::best().name()))
        }
        Ok(Isa::Portable) => Finding::warn(
            CHECK,
            "portable will be used: no faster path is known for this processor",
            "generation will be slow; a processor with AVX2 or AVX-512 is much faster",
        ),
        Ok(isa) => {
            Finding::ok(CHECK, format!("{} will be used, the fastest of: {paths}", isa.name()))
        }
    }
}

fn threads(session: &Session) -> Finding {
    const CHECK: &str = "threads";
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let online = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let online = online.lines().filter(|line| line.starts_with("processor")).count();
    let quota = fs::read_to_string("/sys/fs/cgroup/cpu.max").unwrap_or_default();
    let quota = match quota.split_whitespace().next() {
        None | Some("max") => String::new(),
        Some(_) => format!("; control group: cpu.max {}", quota.trim()),
    };
    let found = |used| {
        format!("{used} will be used; this process may use {allowed} of {online} processors{quota}")
    };
    match machine::threads(&session.environment) {
        Err(failure) => {
            Finding::fail(CHECK, failure.to_string(), "correct or unset FEILUN_THREADS")
        }
        Ok(used) if used > allowed => Finding::warn(
            CHECK,
            found(used),
            "more threads than processors wait for each other: lower FEILUN_THREADS",
        ),
        Ok(used) => Finding::ok(CHECK, found(used)),
    }
}

fn kernels(session: &Session) -> Finding {
    const CHECK: &str = "kernels";
    let kernels = || {
        let mut pool = Pool::new(machine::threads(&session.environment)?)?;
        machine::kernels(session, &mut pool)
    };
    match kernels() {
        Ok(table) => Finding::ok(CHECK, kernel_choice::describe(&table)),
        // A wrong setting has failed a check of its own.
        Err(failure) => Finding::warn(
            CHECK,
            format!("not chosen: {failure}"),
            "correct or unset FEILUN_ISA and FEILUN_THREADS",
        ),
    }
}

fn memory(_: &Session) -> Finding {
    const CHECK: &str = "memory";
    let Some((total, available)) = machine::memory_bytes() else {
        return Finding::warn(CHECK, "unknown: /proc/meminfo cannot be read", "mount /proc");
    };
    let found = format!("{} available of {}", output::bytes(available), output::bytes(total));
    if available < MIN_MEMORY_BYTES {
        let hint =
            format!("free some: the smallest model needs {}", output::bytes(MIN_MEMORY_BYTES));
        return Finding::fail(CHECK, found, hint);
    }
    Finding::ok(CHECK, found)
}

fn bandwidth(session: &Session) -> Finding {
    const CHECK: &str = "bandwidth";
    let threads = machine::threads(&session.environment).unwrap_or(1);
    // The measurement must not be what exhausts the memory.
    let (_, available) = machine::memory_bytes().unwrap_or_default();
    let affordable = usize::try_from(available / 4 / BANDWIDTH_BYTES_PER_THREAD).unwrap_or(1);
    if affordable == 0 {
        return Finding::warn(CHECK, "not measured: too little memory", "free some memory");
    }
    let threads = threads.min(affordable);
    match measure_memory_bandwidth(threads, Duration::from_secs_f64(BANDWIDTH_SECONDS)) {
        Ok(rate) => Finding::ok(
            CHECK,
            format!(
                "{:.1} GB/s read by {threads} threads: decoding cannot be faster than this \
                     divided by the model's bytes",
                rate / 1e9
            ),
        ),
        Err(error) => Finding::warn(CHECK, format!("not measured: {error}"), "free some memory"),
    }
}

fn huge_pages(_: &Session) -> Finding {
    const CHECK: &str = "huge pages";
    const PATH: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let text = fs::read_to_string(PATH).unwrap_or_default();
    let chosen = text.split(['[', ']']).nth(1).unwrap_or("unknown").to_owned();
    match chosen.as_str() {
        "always" | "madvise" => Finding::ok(CHECK, chosen),
        _ => Finding::warn(CHECK, chosen, format!("faster with: echo madvise > {PATH}")),
    }
}

fn data_dir(session: &Session) -> Finding {
    const CHECK: &str = "data directory";
    let path = session.data.path();
    let try_write = || -> std::io::Result<()> {
        fs::create_dir_all(session.data.partials())?;
        let probe = session.data.partials().join(format!("probe.{}", std::process::id()));
        fs::write(&probe, "x")?;
        fs::remove_file(&probe)
    };
    match try_write() {
        Ok(()) => Finding::ok(CHECK, path.display().to_string()),
        Err(error) => Finding::fail(
            CHECK,
            format!("{} cannot be written: {error}", path.display()),
            "choose another with --data DIR or FEILUN_DATA_DIR",
        ),
    }
}

fn disk(session: &Session) -> Finding {
    const CHECK: &str = "disk";
    // The directory may not exist; what will hold it does.
    let Some(place) = session.data.path().ancestors().find(|path| path.exists()) else {
        return Finding::warn(CHECK, "unknown", "choose a data directory with --data DIR");
    };
    match rustix::fs::statvfs(place) {
        Err(error) => Finding::warn(CHECK, format!("unknown: {error}"), "check the data directory"),
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{} free", output::bytes(free));
            if free < MIN_DISK_BYTES {
                return Finding::warn(CHECK, found, "too little to pull a model: free some space");
            }
            Finding::ok(CHECK, found)
        }
    }
}

fn python(_: &Session) -> Finding {
    const CHECK: &str = "python and pip";
    let answer = Command::new("python3")
        .args(["-m", "pip", "--version"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    const HINT: &str = "needed only to pull from Python packages: apt-get install python3-pip";
    match answer {
        Err(_) => Finding::warn(CHECK, "python3 cannot be started", HINT),
        Ok(output) if !output.status.success() => Finding::warn(CHECK, "python3 has no pip", HINT),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let version: Vec<_> = text.split_whitespace().take(2).collect();
            Finding::ok(CHECK, version.join(" "))
        }
    }
}

/// Opens every installed model; comparing digests is `models verify`'s longer work.
fn models(session: &Session) -> Finding {
    const CHECK: &str = "models";
    let installed = match session.data.installed() {
        Ok(installed) => installed,
        Err(failure) => {
            return Finding::fail(CHECK, failure.to_string(), "check the data directory");
        }
    };
    if installed.is_empty() {
        return Finding::warn(CHECK, "none", "fetch one: feilun pull smollm2-135m-instruct");
    }
    let mut names = Vec::new();
    for (name, manifest) in installed {
        let opened =
            manifest.and_then(|manifest| stored_model::open(&session.data.model(&name), &manifest));
        if let Err(failure) = opened {
            return Finding::fail(
                CHECK,
                format!("`{name}` is broken: {failure}"),
                format!("feilun models rm {name}, then pull it again"),
            );
        }
        names.push(name.to_string());
    }
    Finding::ok(CHECK, names.join(", "))
}
