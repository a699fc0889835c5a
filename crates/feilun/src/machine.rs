//! What the user's settings make of this machine: which path to compute on, with how many threads.

use std::num::NonZero;

use feilun_kernels::{Isa, self_test};

use crate::environment::Environment;
use crate::failure::{Failure, Outcome};
use crate::output;

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

/// Threads to compute with: `FEILUN_THREADS`, or as many as this process may use at once, which
/// the process's CPU affinity and its control group's quota decide.
pub(crate) fn threads(environment: &Environment) -> Outcome<usize> {
    let allowed = || std::thread::available_parallelism().map_or(1, NonZero::get);
    Ok(environment.threads()?.unwrap_or_else(allowed))
}
