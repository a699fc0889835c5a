//! What is trained, as one flat vector with a table of contents.

/// What an optimizer may want to treat apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// A linear layer's matrix.
    Matrix,
    /// The token embedding or the output head.
    Embedding,
    /// A norm's weight or a bias.
    Vector,
}

/// One trained tensor: a stretch of the flat vectors of values and of gradients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Its name in a safetensors file, such as `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// `[outputs, inputs]` of a matrix, `[len]` of a vector; row-major.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: ParameterKind,
    /// Its place in the flat vectors. Stretches follow each other without gaps.
    pub range: std::ops::Range<usize>,
}
