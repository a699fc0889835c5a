//! A gate's card on made-up answers, to look at: `cargo run -p feilun-eval --example gate_card --
//! [zh] > card.html`.

use std::io::Write as _;

use feilun_eval::gate::{Comparison, Direction, GateOptions, Guardrail, Unit, decide};
use feilun_eval::report::{GateCard, Language};
use feilun_eval::stats::{Mean, PairedItem};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let is_chinese = std::env::args().any(|argument| argument == "zh");
    let language = if is_chinese { Language::Chinese } else { Language::English };
    let accuracy = answers(240, 8, 3);
    let format = answers(240, 30, 31);
    let bits: Vec<PairedItem> = (0..80)
        .map(|item| PairedItem {
            cluster: item,
            candidate: vec![0.91 + 0.004 * (item * 37 % 41) as f64, 1.0],
            incumbent: vec![0.92 + 0.004 * (item * 37 % 43) as f64, 1.0],
        })
        .collect();
    let comparison = |name, items, direction, unit| Comparison {
        name,
        items,
        aggregate: &Mean,
        direction,
        unit,
    };
    let higher = Direction::HigherIsBetter;
    let target = comparison("answers that are right", &accuracy, higher, Unit::Share);
    let guardrails = [
        (comparison("answers in the right format", &format, higher, Unit::Share), 0.03),
        (comparison("bits per byte", &bits, Direction::LowerIsBetter, Unit::Plain), 0.02),
    ]
    .map(|(comparison, margin)| Guardrail { comparison, margin });
    let verdict = decide(&target, &guardrails, &GateOptions::new(0.05))?;
    let (candidate, incumbent) = ("assistant, candidate", "assistant, in production");
    let card = GateCard { verdict: &verdict, candidate, incumbent, language };
    std::io::stdout().lock().write_all(card.html()?.as_bytes())?;
    Ok(())
}

/// Right and wrong answers in conversations of three; the candidate gets one of `win_every` right
/// that the incumbent does not, and loses one of `lose_every`.
fn answers(num: u64, win_every: u64, lose_every: u64) -> Vec<PairedItem> {
    let right = |is_right: bool| vec![if is_right { 1.0 } else { 0.0 }, 1.0];
    (0..num)
        .map(|item| PairedItem {
            cluster: item / 3,
            candidate: right(item % win_every == 0 || (item * 7 + 3) % 5 > 1),
            incumbent: right(
                item % win_every != 0 && (item % lose_every == 1 || (item * 7 + 3) % 5 > 1),
            ),
        })
        .collect()
}
