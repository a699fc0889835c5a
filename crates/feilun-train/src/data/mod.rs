//! Examples in files, rendered to tokens, packed into rows, in a seeded order.

mod error;
mod example;
mod fit;
mod json;
mod lines;
mod messages;
mod order;
mod render;
mod row;
pub mod shard;

pub use error::{DataError, LineProblem};
pub use example::Shape;
pub use fit::best_fit;
pub use order::{Permutation, Purpose};
pub use render::{Document, Renderer};
pub use row::{Origin, PackedRow, Part};
