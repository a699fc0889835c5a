//! What the user's settings make of this machine: which path to compute on, with how many threads.

use std::num::NonZero;

use feilun_kernels::{Isa, KernelTable, Pool, self_test};

use crate::commands::Session;
use crate::environment::Environment;
use crate::failure::{Failure, Outcome};
use crate::{kernel_choice, output};

/// The instruction path: `FEILUN_ISA`, or the fastest that passes its self-test.
pub(crate) fn isa(environment: &Environment) -> Outcome<Isa> {
    let Some(name) = &environment.isa else {
        let (isa, failures) = self_test::best_tested();
        for failure in failures {
            output::talk(format!("{} {failure}", output::yellow("warning:")));
        }
        return Ok(isa);
    };
    let names = |paths: &[Isa]| paths.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
    let Some(isa) = Isa::from_name(name) else {
        let known = names(&Isa::ALL);
        return Err(Failure::usage(format!("FEILUN_ISA is `{name}`, expected one of {known}")));
    };
    if isa.is_available() {
        self_test::self_test(isa)?;
        return Ok(isa);
    }
    let available = names(&Isa::available());
    Err(Failure::usage(format!("FEILUN_ISA is `{name}`, which this machine cannot run"))
        .hint(format!("it can run {available}")))
}

/// The instruction path of each kernel: the one that `FEILUN_ISA` says for all of them, or the
/// fastest ones, measured on the first start and kept in the data directory.
pub(crate) fn kernels(session: &Session, pool: &mut Pool) -> Outcome<KernelTable> {
    let isa = isa(&session.environment)?;
    if session.environment.isa.is_some() {
        return Ok(isa.into());
    }
    let key = kernel_choice::Key::new(processor(), isa);
    let measure = || KernelTable::measure(pool, isa);
    Ok(kernel_choice::load_or_measure(&session.data.kernels(), key, isa, measure))
}

/// The processor's name.
pub(crate) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("unknown", |(_, name)| name.trim()).to_owned()
}

/// The peak of this process's resident memory, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// Total and available bytes: the machine's, or the control group's where that is less.
pub(crate) fn memory_bytes() -> Option<(u64, u64)> {
    let figure = |name| kibibytes("/proc/meminfo", name);
    let (total, available) = (figure("MemTotal:")?, figure("MemAvailable:")?);
    let own = rustix::process::getrlimit(rustix::process::Resource::Data).current;
    let available = own.map_or(available, |own| available.min(own));
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    match number("/sys/fs/cgroup/memory.max") {
        Some(limit) if limit < total => {
            let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
            Some((limit, available.min(limit.saturating_sub(used))))
        }
        _ => Some((total, available)),
    }
}

/// Bounds what this process may allocate. Mapped files do not count.
pub(crate) fn limit_memory(gibibytes: f64) -> Outcome {
    use rustix::process::{Resource, getrlimit, setrlimit};
    if !(gibibytes > 0.0 && gibibytes < 1e6) {
        return Err(Failure::usage(format!("--memory {gibibytes} is no amount of memory")));
    }
    let bytes = (gibibytes * (1u64 << 30) as f64) as u64;
    let mut limit = getrlimit(Resource::Data);
    limit.current = Some(limit.maximum.map_or(bytes, |maximum| maximum.min(bytes)));
    Ok(setrlimit(Resource::Data, limit)?)
}

/// A figure in one of the kernel's tables.
fn kibibytes(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let figure = text.lines().find_map(|line| line.strip_prefix(name))?;
    figure.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Threads to compute with: `FEILUN_THREADS`, or as many as this process may use at once, which
/// the process's CPU affinity and its control group's quota decide.
pub(crate) fn threads(environment: &Environment) -> Outcome<usize> {
    let allowed = || std::thread::available_parallelism().map_or(1, NonZero::get);
    Ok(environment.threads()?.unwrap_or_else(allowed))
}
