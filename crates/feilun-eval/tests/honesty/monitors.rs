//! Whether monitors keep their rate although they are read after every answer.

use feilun_eval::stats::monitor::{MeanMonitor, ShareMonitor};

use crate::check_rate;
use crate::draws::Draws;

const ALPHA: f64 = 0.05;

/// Whether the interval ever misses the mean of these signals.
fn ever_misses(mean: f64, num: usize, mut signal: impl FnMut() -> f64) -> bool {
    let mut monitor = MeanMonitor::new(ALPHA).unwrap();
    (0..num).any(|_| {
        monitor.observe(signal()).unwrap();
        let (low, high) = monitor.interval();
        !(low..=high).contains(&mean)
    })
}

/// What an ordinary 95 % interval does when it is read after every answer, from the tenth on.
fn ordinary_ever_misses(mean: f64, num: usize, mut signal: impl FnMut() -> f64) -> bool {
    let (mut sum, mut squares) = (0.0, 0.0);
    (1..=num).any(|seen| {
        let x = signal();
        sum += x;
        squares += x * x;
        let seen_so_far = seen as f64;
        let average = sum / seen_so_far;
        let variance = (squares / seen_so_far - average * average).max(1e-9);
        seen >= 10 && (average - mean).abs() > 1.96 * (variance / seen_so_far).sqrt()
    })
}

/// Whether two models with these shares ever raise an alarm, and after how many pairs.
fn alarm(draws: &mut Draws, candidate: f64, incumbent: f64, num: usize) -> Option<usize> {
    let mut monitor = ShareMonitor::new(ALPHA).unwrap();
    (1..=num).find(|_| {
        monitor.observe(draws.happens(candidate), draws.happens(incumbent));
        monitor.is_alarmed()
    })
}

fn misses(num_runs: u64, num: usize, ever: fn(&mut Draws, usize) -> bool) -> usize {
    (0..num_runs).filter(|&seed| ever(&mut Draws::new(4_000_000 + seed), num)).count()
}

type Run = (&'static str, fn(&mut Draws, usize) -> bool);

const RUNS: [Run; 3] = [
    ("good answers, 80 %", |draws, num| ever_misses(0.8, num, || draws.right(0.8))),
    ("good answers, 97 %", |draws, num| ever_misses(0.97, num, || draws.right(0.97))),
    ("grades, skewed", |draws, num| ever_misses(0.2, num, || draws.uniform().powi(4))),
];

const ORDINARY: [Run; 3] = [
    ("good answers, 80 %", |draws, num| ordinary_ever_misses(0.8, num, || draws.right(0.8))),
    ("good answers, 97 %", |draws, num| ordinary_ever_misses(0.97, num, || draws.right(0.97))),
    ("grades, skewed", |draws, num| ordinary_ever_misses(0.2, num, || draws.uniform().powi(4))),
];

#[test]
fn monitors_may_be_read_at_any_time() {
    for (name, ever) in RUNS {
        check_rate(name, misses(200, 300, ever), 200, 0.0, ALPHA);
    }
    // The same question to an ordinary interval: the simulation sees what is wrong with it.
    let (_, ordinary) = ORDINARY[0];
    assert!(misses(200, 300, ordinary) > 40);
}

#[test]
fn shares_raise_alarms_where_there_is_cause() {
    for share in [0.3, 0.8, 0.97] {
        let alarmed =
            |seed: u64| alarm(&mut Draws::new(5_000_000 + seed), share, share, 2_000).is_some();
        let num = (0..1_000).filter(|&seed| alarmed(seed)).count();
        check_rate("equal shares", num, 1_000, 0.0, ALPHA);
        let worse = |seed: u64| {
            alarm(&mut Draws::new(5_000_000 + seed), share - 0.2, share, 2_000).is_some()
        };
        let num = (0..100).filter(|&seed| worse(seed)).count();
        assert!(num >= 95, "{share}: {num} alarms of 100");
        let better =
            |seed: u64| alarm(&mut Draws::new(6_000_000 + seed), share, share - 0.1, 2_000);
        let num = (0..300).filter(|&seed| better(seed).is_some()).count();
        check_rate("a better candidate", num, 300, 0.0, ALPHA);
    }
}

#[test]
fn a_monitor_closes_in() {
    let draws = &mut Draws::new(7);
    let mut monitor = MeanMonitor::new(ALPHA).unwrap();
    for _ in 0..2_000 {
        monitor.observe(draws.right(0.8)).unwrap();
    }
    let (low, high) = monitor.interval();
    assert!(low < 0.8 && high > 0.8 && high - low < 0.09, "{low} to {high}");
    assert!(monitor.observe(1.5).is_err() && monitor.observe(f64::NAN).is_err());
    assert_eq!(monitor.num_signals(), 2_000);
}

#[test]
#[ignore = "prints the table of the lab book; minutes"]
fn table_of_monitors() {
    println!("| signal | ever wrong within 2,000 (%), at most 5 | ordinary 95 % interval |");
    println!("|---|---|---|");
    for ((name, ever), (_, ordinary)) in RUNS.into_iter().zip(ORDINARY) {
        let rate = |run| 100.0 * misses(1_000, 2_000, run) as f64 / 1_000.0;
        println!("| {name} | {:.1} | {:.1} |", rate(ever), rate(ordinary));
    }
    println!("| shares | alarm within 5,000 pairs (%) | median pairs to the alarm |");
    println!("|---|---|---|");
    for (candidate, incumbent) in
        [(0.8, 0.8), (0.97, 0.97), (0.3, 0.3), (0.85, 0.8), (0.75, 0.8), (0.7, 0.8), (0.6, 0.8)]
    {
        let mut pairs: Vec<usize> = (0..2_000)
            .filter_map(|seed| {
                alarm(&mut Draws::new(6_000_000 + seed), candidate, incumbent, 5_000)
            })
            .collect();
        pairs.sort_unstable();
        let median = pairs.get(pairs.len() / 2).copied().unwrap_or_default();
        let rate = 100.0 * pairs.len() as f64 / 2_000.0;
        println!("| {candidate} against {incumbent} | {rate:.2} | {median} |");
    }
}
