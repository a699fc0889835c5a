//! Which inner loop runs, and in which form it takes its operands.

use super::Precision;
use crate::Isa;

/// What a word of a packed operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// An f32.
    F32,
    /// An f32, rounded to bf16.
    RoundedF32,
    /// Two bf16 of neighbouring k, the first in the low half.
    Pairs,
    /// As `Pairs`, filled up with zeros to whole tiles of 16 words.
    TilePairs,
}

impl Format {
    /// Words of a lane over `k`.
    pub(super) fn words(self, k: usize) -> usize {
        match self {
            Format::F32 | Format::RoundedF32 => k,
            Format::Pairs => k.div_ceil(2),
            Format::TilePairs => k.div_ceil(2).next_multiple_of(16),
        }
    }

    pub(super) fn k_per_word(self) -> usize {
        if matches!(self, Format::F32 | Format::RoundedF32) { 1 } else { 2 }
    }
}

/// How the words of a panel of 16 lanes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[word][16 lanes]`.
    Whole,
    /// Two times `[word][8 lanes]`: what fits the registers of the vector paths.
    Halves,
    /// `[word / 16][16 lanes][16 words]`: the left operand of AMX.
    Rows,
}

/// An inner loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Portable {
        rounded: bool,
    },
    #[cfg(target_arch = "x86_64")]
    Avx2 {
        rounded: bool,
    },
    #[cfg(target_arch = "x86_64")]
    Avx512 {
        rounded: bool,
    },
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Path {
    pub(super) fn of(isa: Isa, precision: Precision) -> Path {
        let rounded = precision == Precision::Bf16;
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx if rounded => Path::Amx,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if rounded && dot_product_pays() => Path::Avx512Bf16,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Amx => Path::Avx512 { rounded },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Path::Avx2 { rounded },
            _ => Path::Portable { rounded },
        }
    }

    /// What the path's helpers may use.
    pub(super) fn isa(self) -> Isa {
        match self {
            Path::Portable { .. } => Isa::Portable,
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 { .. } => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            _ => Isa::Avx512,
        }
    }

    pub(super) fn format(self) -> Format {
        match self {
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 { rounded } | Path::Avx2 { rounded } => float_format(rounded),
            Path::Portable { rounded } => float_format(rounded),
            #[cfg(target_arch = "x86_64")]
            Path::Avx512Bf16 => Format::Pairs,
            #[cfg(target_arch = "x86_64")]
            Path::Amx => Format::TilePairs,
        }
    }

    /// Layout of the left operand.
    pub(super) fn left(self) -> Layout {
        match self {
            #[cfg(target_arch = "x86_64")]
            Path::Amx => Layout::Rows,
            _ => Layout::Halves,
        }
    }

    /// Layout of the right operand.
    pub(super) fn right(self) -> Layout {
        Layout::Whole
    }

    /// How much of the second-level cache the right operand may take: about half of 1 MiB, or
    /// of the 2 MiB that the processors with AMX have.
    pub(super) fn cache_bytes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Path::Amx => 1 << 20,
            _ => 448 << 10,
        }
    }
}

fn float_format(rounded: bool) -> Format {
    if rounded { Format::RoundedF32 } else { Format::F32 }
}

/// Whether `vdpbf16ps` is there and beats f32 FMA. Intel's Xeons run it at half the rate of f32
/// FMA, AMD's Zen 4 at twice: far enough apart for a short measurement.
#[cfg(target_arch = "x86_64")]
fn dot_product_pays() -> bool {
    use std::sync::OnceLock;
    use std::time::Duration;
    static PAYS: OnceLock<bool> = OnceLock::new();
    *PAYS.get_or_init(|| {
        is_x86_feature_detected!("avx512bf16")
            && crate::machine::measure_peak_rates(Isa::Avx512, Duration::from_millis(2))
                .is_some_and(|rates| rates.bf16_dot.is_some_and(|rate| rate > rates.f32_fma))
    })
}
