//! Prints the measured roofs of this machine.

#![expect(clippy::print_stdout, reason = "an example program talks to its terminal")]

use std::time::Duration;

use feilun_kernels::{Isa, machine};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let duration = Duration::from_secs(1);
    for isa in Isa::available() {
        let rates = machine::measure_peak_rates(isa, duration);
        println!("{}: operations per second of one thread: {rates:?}", isa.name());
    }
    for num_threads in [1, 2] {
        let bytes = machine::measure_memory_bandwidth(num_threads, duration)?;
        println!("memory read, {num_threads} threads: {:.1} GB/s", bytes / 1e9);
    }
    Ok(())
}
