//! Operands and results as callers see them.

use half::bf16;

use crate::PackedMatrix;

/// Values in memory, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [bf16]),
}

impl Values<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Values<'a> {
        Values::F32(values)
    }
}

impl<'a> From<&'a [bf16]> for Values<'a> {
    fn from(values: &'a [bf16]) -> Values<'a> {
        Values::Bf16(values)
    }
}

/// Where an operand's values are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    Values(Values<'a>),
    Packed(&'a PackedMatrix),
}

/// An operand.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub(super) source: Source<'a>,
    /// As stored.
    pub(super) stored_rows: usize,
    pub(super) stored_cols: usize,
    pub(super) is_transposed: bool,
}

impl<'a> Matrix<'a> {
    /// `(rows, cols)` values, row-major.
    ///
    /// # Panics
    /// When there are more or fewer values.
    pub fn new(values: impl Into<Values<'a>>, rows: usize, cols: usize) -> Matrix<'a> {
        let values = values.into();
        assert_eq!(Some(values.len()), rows.checked_mul(cols), "values of {rows} x {cols}");
        Matrix {
            source: Source::Values(values),
            stored_rows: rows,
            stored_cols: cols,
            is_transposed: false,
        }
    }

    /// Frozen weights of any storage type: a row per output, a column per input.
    pub fn packed(weights: &'a PackedMatrix) -> Matrix<'a> {
        Matrix {
            source: Source::Packed(weights),
            stored_rows: weights.rows(),
            stored_cols: weights.cols(),
            is_transposed: false,
        }
    }

    /// The same values with rows and columns exchanged; nothing is copied.
    #[must_use]
    pub fn transposed(self) -> Matrix<'a> {
        Matrix { is_transposed: !self.is_transposed, ..self }
    }

    /// Rows, after any transposition.
    pub fn rows(&self) -> usize {
        if self.is_transposed { self.stored_cols } else { self.stored_rows }
    }

    /// Columns, after any transposition.
    pub fn cols(&self) -> usize {
        if self.is_transposed { self.stored_rows } else { self.stored_cols }
    }
}

/// Where the product goes, row-major.
#[derive(Debug)]
pub enum Output<'a> {
    /// 32-bit floats.
    F32(&'a mut [f32]),
    /// bfloat16; sums are f32 until they are complete.
    Bf16(&'a mut [bf16]),
}

impl Output<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Output::F32(values) => values.len(),
            Output::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
