//! Examples in files, rendered to tokens, packed into rows, in a seeded order.
//!
//! ```text
//! JSONL files ── Examples (checked, rendered with the server's renderer) ──┐
//!                                                                          ├─ Plan ── rows of a step
//! text files ── write_shard ── token shards ── Shard (memory-mapped) ──────┘       └─ Ledger
//! ```
//!
//! - Nothing is trusted: a line is bounded before it is read, and every error names file, line, what
//!   was found, what was expected and what to do. All of it happens before the first step.
//! - [`Plan::rows`] is a pure function of (data, options, step): a run that was killed goes on with
//!   exactly the rows that it would have had.
//! - The [`Ledger`] says of every token whether it is trained, masked, cropped, dropped or held out.

mod batches;
mod epochs;
mod error;
mod example;
mod example_rows;
mod examples;
mod fit;
mod inspect;
mod json;
mod ledger;
mod lines;
mod messages;
mod order;
mod plan;
mod render;
mod row;
pub mod shard;
mod shard_rows;
mod texts;

pub use error::{DataError, LineProblem};
pub use example::Shape;
pub use examples::{BadLines, Examples, ReadOptions, ReadReport, SkippedLine};
pub use fit::best_fit;
pub use inspect::{InspectError, Inspection, inspect};
pub use ledger::{ExampleCounts, Ledger, LedgerError, SourceLedger, TokenCounts};
pub use order::{Permutation, Purpose};
pub use plan::{LongExamples, Plan, PlanOptions};
pub use render::{Document, Renderer};
pub use row::{Origin, PackedRow, Part};
pub use texts::{TextOptions, TextReport, texts_digest, write_shard};
