//! Cards as people get them.

use crate::gate::{Comparison, Decision, Direction, GateOptions, Guardrail, Unit, Verdict, decide};
use crate::report::{GateCard, Language, ReportCard, ReportRow};
use crate::stats::{Mean, Options, PairedItem, ScoredItem, interval};

/// Right answers of two models: both right, only the candidate, only the incumbent, none.
fn answers(both: usize, wins: usize, losses: usize, none: usize) -> Vec<PairedItem> {
    let kinds = [(both, 1.0, 1.0), (wins, 1.0, 0.0), (losses, 0.0, 1.0), (none, 0.0, 0.0)];
    let pairs = kinds
        .into_iter()
        .flat_map(|(num, candidate, incumbent)| std::iter::repeat_n((candidate, incumbent), num));
    (0..)
        .zip(pairs)
        .map(|(cluster, (candidate, incumbent))| PairedItem {
            cluster,
            candidate: vec![candidate, 1.0],
            incumbent: vec![incumbent, 1.0],
        })
        .collect()
}

fn comparison<'a>(name: &'a str, items: &'a [PairedItem]) -> Comparison<'a> {
    let (direction, unit) = (Direction::HigherIsBetter, Unit::Share);
    Comparison { name, items, aggregate: &Mean, direction, unit }
}

/// A verdict on these answers with one guardrail named `guarded`.
fn verdict(target: &[PairedItem], guarded: &str, guardrail: &[PairedItem]) -> Verdict {
    let guardrail = Guardrail { comparison: comparison(guarded, guardrail), margin: 0.05 };
    decide(&comparison("accuracy", target), &[guardrail], &GateOptions::new(0.05)).unwrap()
}

fn card(verdict: &Verdict, language: Language) -> GateCard<'_> {
    GateCard { verdict, candidate: "assistant-2", incumbent: "assistant-1", language }
}

#[test]
fn a_gate_card_in_english() {
    let verdict = verdict(&answers(80, 22, 14, 24), "format", &answers(400, 2, 3, 5));
    assert!(matches!(verdict.decision, Decision::NotEnough { .. }));
    insta::assert_snapshot!(
        "gate_card_english",
        card(&verdict, Language::English).markdown().unwrap()
    );
}

#[test]
fn a_gate_card_in_chinese() {
    let verdict = verdict(&answers(300, 60, 14, 26), "格式", &answers(400, 2, 90, 5));
    assert_eq!(verdict.decision, Decision::Reject);
    insta::assert_snapshot!(
        "gate_card_chinese",
        card(&verdict, Language::Chinese).markdown().unwrap()
    );
}

#[test]
fn a_page_fetches_and_runs_nothing() {
    let hostile = "<script>alert(1)</script><img src=https://evil/ onerror=x>\"'&|";
    let verdict = verdict(&answers(300, 60, 14, 26), hostile, &answers(400, 2, 3, 5));
    assert_eq!(verdict.decision, Decision::Promote);
    for language in [Language::English, Language::Chinese] {
        let card = GateCard { verdict: &verdict, candidate: hostile, incumbent: hostile, language };
        check_page(&card.html().unwrap());
        let markdown = card.markdown().unwrap();
        assert!(!markdown.contains("<script") && !markdown.contains("<img"), "{markdown}");
        assert!(!markdown.contains("https://"), "{markdown}");
        let rows = markdown.lines().filter(|line| line.starts_with('|'));
        for row in rows {
            let bars = row.replace("\\|", "").matches('|').count();
            assert_eq!(bars, 10, "{row}");
        }
    }
}

/// One whole page in which nothing from outside is markup.
#[track_caller]
fn check_page(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html><html lang="), "{page}");
    assert!(page.contains("default-src 'none'"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    for forbidden in ["<script", "<img", "<link", "<iframe", "<a ", "url(", "@import", "src="] {
        let page = page.replace("src=https", "");
        assert!(!page.contains(forbidden), "{forbidden} in {page}");
    }
    // The namespace of SVG is a name, and nothing is fetched from it.
    let rest = page.replace("http://www.w3.org/2000/svg", "");
    let rest = rest.replace("https://evil/", "");
    assert!(!rest.contains("http:") && !rest.contains("https:"), "{page}");
}

#[test]
fn a_page_draws_what_it_says() {
    let verdict = verdict(&answers(80, 22, 14, 24), "format", &answers(400, 2, 3, 5));
    let page = card(&verdict, Language::English).html().unwrap();
    assert_eq!(page.matches("<svg").count(), 2);
    for word in ["Gate: not enough evidence", "worth a promotion", "may be lost", "no difference"] {
        assert!(page.contains(word), "{word} in {page}");
    }
}

#[test]
fn verdicts_survive_json() {
    let verdict = verdict(&answers(80, 22, 14, 24), "format", &answers(400, 2, 3, 5));
    let json = serde_json::to_value(&verdict).unwrap();
    assert_eq!(json["decision"], "not_enough");
    assert_eq!(json["target"]["outcome"], "open");
    assert_eq!(json["guardrails"][0]["outcome"], "held");
    let back: Verdict = serde_json::from_value(json).unwrap();
    assert_eq!(back, verdict);
}

#[test]
fn a_report_card_in_both_languages() {
    let skill = |name: &str, right: u64| {
        let items: Vec<ScoredItem> = (0..40)
            .map(|item| {
                let value = if item < right { 1.0 } else { 0.0 };
                ScoredItem { cluster: item, sums: vec![value, 1.0] }
            })
            .collect();
        let interval = interval(&items, &Mean, &Options::default()).unwrap();
        ReportRow { name: name.to_owned(), unit: Unit::Share, interval, chance: Some(0.25) }
    };
    let rows = [skill("arithmetic", 31), skill("<b>recall</b>", 40)];
    let notes = ["1 item could not be scored".to_owned()];
    let card =
        |language| ReportCard { model: "m", suite: "s", rows: &rows, notes: &notes, language };
    insta::assert_snapshot!("report_card_english", card(Language::English).markdown().unwrap());
    insta::assert_snapshot!("report_card_chinese", card(Language::Chinese).markdown().unwrap());
    check_page(&card(Language::English).html().unwrap());
}
