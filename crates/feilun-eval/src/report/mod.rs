//! Pages and Markdown for people who do not do statistics, in English and Chinese.
//!
//! [`GateCard`] says what a gate decided and why; [`ReportCard`] shows one model's metrics. Each
//! has one picture per number: the estimate as a dot, its interval as a bar, and the marks that
//! it is held against. A page is one file without scripts, links or anything from elsewhere, and
//! whatever comes from outside (names of models and metrics) is escaped.

mod gate_card;
mod gate_words;
mod language;
mod markdown;
mod numbers;
mod page;
mod plot;
mod report_card;
#[cfg(test)]
mod tests;

pub use gate_card::GateCard;
pub use language::Language;
pub use report_card::{ReportCard, ReportRow};

/// Why a card could not be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ReportError {
    #[error("the picture of `{name}` cannot be drawn: {reason}")]
    Picture { name: String, reason: String },
    #[error("`{name}` has {found} for a number, expected a finite one")]
    NotFinite { name: String, found: f64 },
}
