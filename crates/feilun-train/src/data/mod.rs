//! Examples in files, rendered to tokens, packed into rows, in a seeded order.

mod row;

pub use row::{Origin, PackedRow, Part};
