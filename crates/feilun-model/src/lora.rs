//! LoRA adapters in the PEFT safetensors layout.

/// Low-rank additions to linear layers, applied unmerged: `y += scale * B (A x)`.
#[derive(Debug)]
pub struct Adapter {}
