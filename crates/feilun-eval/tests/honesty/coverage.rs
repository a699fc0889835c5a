//! How often an interval contains the truth.

use feilun_eval::stats::{Options, StatsError, interval, paired_difference};

use crate::check_rate;
use crate::draws::Draws;
use crate::rivals::Sums;
use crate::scenarios::{PAIRS, Paired, SINGLES, Single};

/// What became of simulated intervals.
#[derive(Default)]
struct Tally {
    num: usize,
    hits: usize,
    /// The truth is below the interval.
    below: usize,
    above: usize,
    width: f64,
    /// There was no interval.
    none: usize,
}

impl Tally {
    fn count(&mut self, truth: f64, (low, high): (f64, f64)) {
        self.num += 1;
        self.below += usize::from(truth < low);
        self.above += usize::from(truth > high);
        self.hits += usize::from((low..=high).contains(&truth));
        self.width += high - low;
    }

    fn row(&self) -> String {
        let percent = |count: usize| 100.0 * count as f64 / self.num.max(1) as f64;
        format!(
            "{:.1} ({:.1}, {:.1}) | {:.3}",
            percent(self.hits),
            percent(self.below),
            percent(self.above),
            self.width / self.num.max(1) as f64
        )
    }
}

fn options(seed: u64, num_resamples: usize) -> Options {
    Options { confidence: 0.95, seed, num_resamples }
}

fn one(scenario: &Single, num_items: usize, num: u64, num_resamples: usize) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..num {
        let items = (scenario.draw)(&mut Draws::new(1_000_000 + seed), num_items);
        match interval(&items, scenario.aggregate, &options(seed, num_resamples)) {
            Ok(found) => tally.count(scenario.truth, (found.low, found.high)),
            Err(StatsError::NoVariation) => tally.none += 1,
            Err(error) => panic!("{}: {error}", scenario.name),
        }
    }
    tally
}

fn two(scenario: &Paired, num_items: usize, num: u64, num_resamples: usize) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..num {
        let items = (scenario.draw)(&mut Draws::new(2_000_000 + seed), num_items);
        let options = options(seed, num_resamples);
        match paired_difference(&items, scenario.aggregate, 0.0, &options) {
            Ok(found) => tally.count(scenario.truth, (found.low, found.high)),
            Err(StatsError::NoVariation) => tally.none += 1,
            Err(error) => panic!("{}: {error}", scenario.name),
        }
    }
    tally
}

/// The rivals on the same items.
fn rivals(num: u64, mut sums: impl FnMut(u64) -> (f64, Sums<'static>)) -> [Tally; 3] {
    let mut tallies: [Tally; 3] = Default::default();
    for seed in 0..num {
        let (truth, sums) = sums(seed);
        let [bca, percentile] = sums.bca_and_percentile(&mut Draws::new(seed));
        for (tally, ends) in tallies.iter_mut().zip([sums.jackknife_t(), bca, percentile]) {
            tally.count(truth, ends);
        }
    }
    tallies
}

/// A row of the table for each scenario.
fn print_table(num_items: usize, num: u64) {
    println!("| scenario | items | covered (truth below, above), % | width | no interval |");
    println!("|---|---|---|---|---|");
    let print = |kind: &str, name: &str, tally: Tally| {
        println!("| {kind}, {name} | {num_items} | {} | {} |", tally.row(), tally.none);
    };
    for scenario in SINGLES {
        print("one model", scenario.name, one(scenario, num_items, num, 999));
    }
    for scenario in PAIRS {
        print("difference", scenario.name, two(scenario, num_items, num, 999));
    }
}

#[test]
#[ignore = "prints a table of the lab book; a minute"]
fn table_of_coverage_with_20_items() {
    print_table(20, 10_000);
}

#[test]
#[ignore = "prints a table of the lab book; minutes"]
fn table_of_coverage_with_50_items() {
    print_table(50, 4_000);
}

#[test]
#[ignore = "prints a table of the lab book; minutes"]
fn table_of_coverage_with_200_items() {
    print_table(200, 1_000);
}

#[test]
#[ignore = "prints the table of the lab book; minutes"]
fn table_of_rivals() {
    const NUM_ITEMS: usize = 20;
    println!("| scenario, 20 items | jackknife t | BCa | percentile |");
    println!("|---|---|---|---|");
    let print = |kind: &str, name: &str, tallies: [Tally; 3]| {
        let [jackknife, bca, percentile] = tallies.map(|tally| tally.row().replace(" | ", "; "));
        println!("| {kind}, {name} | {jackknife} | {bca} | {percentile} |");
    };
    for scenario in SINGLES {
        let tallies = rivals(2_000, |seed| {
            let items = (scenario.draw)(&mut Draws::new(1_000_000 + seed), NUM_ITEMS);
            (scenario.truth, Sums::of_one(&items, scenario.aggregate))
        });
        print("one model", scenario.name, tallies);
    }
    for scenario in PAIRS {
        let tallies = rivals(2_000, |seed| {
            let items = (scenario.draw)(&mut Draws::new(2_000_000 + seed), NUM_ITEMS);
            (scenario.truth, Sums::of_two(&items, scenario.aggregate))
        });
        print("difference", scenario.name, tallies);
    }
}

#[test]
fn intervals_contain_the_truth() {
    // Answers that are right or wrong are whole numbers, and cover more than they promise with
    // few of them; nothing that is known covers very skewed scores fully.
    let bounds = |name: &str| match name {
        "very skewed: log-normal" => (0.91, 0.95),
        name if name.starts_with("right") => (0.945, 1.0),
        _ => (0.94, 0.98),
    };
    let mut together = Tally::default();
    let mut judge = |name: &str, tally: Tally| {
        let (low, high) = bounds(name);
        check_rate(name, tally.hits, tally.num, low, high);
        assert_eq!(tally.none, 0, "{name}");
        if low == 0.94 {
            together.num += tally.num;
            together.hits += tally.hits;
        }
    };
    for scenario in SINGLES {
        judge(scenario.name, one(scenario, 20, 600, 499));
    }
    for scenario in PAIRS {
        judge(scenario.name, two(scenario, 20, 600, 499));
    }
    // All together are many enough to tell: the percentile bootstrap and BCa cover 91 % of these.
    check_rate("the bootstrap", together.hits, together.num, 0.945, 0.96);
}
