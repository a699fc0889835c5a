//! Optimizers: gradients in, changed weights out.
