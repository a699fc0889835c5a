//! Whether what a plan promises comes true.

use feilun_eval::stats::{Mean, Options, Plan, Spread, paired_difference};

use crate::check_rate;
use crate::draws::Draws;
use crate::scenarios::{paired_mean, right_or_wrong};

const ALPHA: f64 = 0.025;
const POWER: f64 = 0.8;

fn plan(spread: Spread) -> Plan {
    Plan { alpha: ALPHA, power: POWER, spread, design_effect: 1.0 }
}

/// How often so many items show the difference that they should be able to show.
fn found(spread: Spread, num_items: u64, num: u64) -> usize {
    let difference = plan(spread).detectable_difference(num_items).unwrap();
    let is_found = |seed: u64| {
        let draws = &mut Draws::new(3_000_000 + seed);
        let items = paired_mean(num_items as usize, || match spread {
            Spread::Deviation { deviation } => (difference + deviation * draws.normal(), 0.0),
            Spread::Discordant { share } => {
                right_or_wrong(draws, 0.5 * (share + difference), 0.5 * (share - difference))
            }
        });
        let options = Options { seed, num_resamples: 499, ..Options::default() };
        paired_difference(&items, &Mean, 0.0, &options).unwrap().low > 0.0
    };
    (0..num).filter(|&seed| is_found(seed)).count()
}

const SPREADS: [(&str, Spread); 2] = [
    ("normal differences", Spread::Deviation { deviation: 0.3 }),
    ("right or wrong, 30 % differ", Spread::Discordant { share: 0.3 }),
];

#[test]
fn plans_come_true() {
    for (name, spread) in SPREADS {
        for num_items in [40, 140] {
            // The bootstrap and the counts of wins are not the t test of the formula: a few
            // points more or less.
            check_rate(name, found(spread, num_items, 600), 600, POWER - 0.05, POWER + 0.06);
        }
    }
}

#[test]
#[ignore = "prints the table of the lab book; minutes"]
fn table_of_power() {
    println!("| differences | items | detectable | found (%), promised 80 |");
    println!("|---|---|---|---|");
    for (name, spread) in SPREADS {
        for num_items in [20, 50, 140, 400] {
            let Ok(difference) = plan(spread).detectable_difference(num_items) else {
                println!("| {name} | {num_items} | none | |");
                continue;
            };
            let rate = 100.0 * found(spread, num_items, 4_000) as f64 / 4_000.0;
            println!("| {name} | {num_items} | {difference:.3} | {rate:.1} |");
        }
    }
}
