//! The paged cache of keys and values of one layer: where everything lies, and how rows get in.
//!
//! A cache is `num_blocks` blocks of [`BLOCK_TOKENS`] tokens. A block holds, for each kv head,
//! first the keys with tokens as lanes, then (8-bit kind) the scales, then the values with the
//! head's dimensions as lanes: attention multiplies whole vectors and never transposes.
//!
//! | kind | keys | scales | values |
//! |---|---|---|---|
//! | `F32`, `Bf16` | `[dim][16 tokens]` | | `[16 tokens][dim]` |
//! | `Q8` | `[dim / 4][16 tokens][4]`, `u8` = q + 128 | `[16]` of the keys, `[16]` of the values, bf16 | `[16 tokens / 4][dim][4 tokens]`, `i8` |
//!
//! `dim` is the head's dimension rounded up to a multiple of 16; the excess is zeros. A scale
//! belongs to one token and head: `x = scale * q`, with `scale = max|x| / 127` rounded up to bf16.

use crate::pack::SendPointer;
use crate::vector::{LANES, Simd, load_chunk, simd_fns};
use crate::{Isa, Pool};

/// Tokens in one block.
pub const BLOCK_TOKENS: usize = 16;
/// Largest dimension of a head.
pub const HEAD_DIM_MAX: usize = 256;
/// Bytes of the scales of one (block, head) in the 8-bit kind.
const SCALE_BYTES: usize = 2 * BLOCK_TOKENS * size_of::<u16>();
/// In the 8-bit kind keys are stored with this added, because the dot product instruction
/// takes one unsigned factor.
const KEY_OFFSET: f32 = 128.0;
/// Smaller maxima are taken for zero: their reciprocals are not floats.
const MAX_MIN: f32 = 1e-30;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvKind {
    /// 32-bit floats: exact.
    F32,
    /// bfloat16, rounded to nearest even.
    Bf16,
    /// 8 bits with one scale per token and head: half the memory traffic of bf16.
    Q8,
}

/// Why a layout is refused.
#[derive(Debug, thiserror::Error)]
pub enum KvLayoutError {
    /// Heads that the kernels cannot take.
    #[error("head dimension {found}: expected an even number from 2 to {HEAD_DIM_MAX}")]
    HeadDim {
        /// The dimension found.
        found: usize,
    },
    /// Without heads, or with too many.
    #[error("{found} kv heads: expected 1 to 65536")]
    NumHeads {
        /// The number found.
        found: usize,
    },
}

/// The layout of one layer's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvLayout {
    kind: KvKind,
    num_kv_heads: usize,
    head_dim: usize,
}

/// Where one token's keys and values go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvSlot {
    /// Block of the cache.
    pub block: u32,
    /// Token within the block.
    pub offset: u32,
}

impl KvLayout {
    /// The layout for `num_kv_heads` heads of `head_dim` values.
    ///
    /// # Errors
    /// When the kernels cannot take such heads.
    ///
    /// ```
    /// use feilun_kernels::kv::{KvKind, KvLayout};
    /// let layout = KvLayout::new(KvKind::Q8, 3, 64)?;
    /// assert_eq!(layout.block_bytes(), 3 * (16 * 64 + 64 + 16 * 64));
    /// # Ok::<(), feilun_kernels::kv::KvLayoutError>(())
    /// ```
    pub fn new(
        kind: KvKind,
        num_kv_heads: usize,
        head_dim: usize,
    ) -> Result<KvLayout, KvLayoutError> {
        if !(2..=HEAD_DIM_MAX).contains(&head_dim) || !head_dim.is_multiple_of(2) {
            return Err(KvLayoutError::HeadDim { found: head_dim });
        }
        if !(1..=1 << 16).contains(&num_kv_heads) {
            return Err(KvLayoutError::NumHeads { found: num_kv_heads });
        }
        Ok(KvLayout { kind, num_kv_heads, head_dim })
    }

    /// How numbers are stored.
    pub fn kind(&self) -> KvKind {
        self.kind
    }

    /// Heads of keys and values.
    pub fn num_kv_heads(&self) -> usize {
        self.num_kv_heads
    }

    /// Values of one head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Values of one token's keys, or of its values.
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Bytes of one block of one layer: a multiple of 64.
    pub fn block_bytes(&self) -> usize {
        self.num_kv_heads * self.head_bytes()
    }

    /// Values of one head as stored.
    pub(crate) fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Bytes of one head of one block.
    pub(crate) fn head_bytes(&self) -> usize {
        let values = BLOCK_TOKENS * self.padded_dim();
        match self.kind {
            KvKind::F32 => 2 * values * size_of::<f32>(),
            KvKind::Bf16 => 2 * values * size_of::<u16>(),
            KvKind::Q8 => 2 * values + SCALE_BYTES,
        }
    }

    /// The slot of a position of a sequence whose block table is `blocks`, or `None` where the
    /// table does not reach so far.
    pub fn slot(&self, blocks: &[u32], position: usize) -> Option<KvSlot> {
        let block = *blocks.get(position / BLOCK_TOKENS)?;
        Some(KvSlot { block, offset: (position % BLOCK_TOKENS) as u32 })
    }

    /// Reads back the keys and values of one head of one slot, `head_dim` of each, as attention
    /// sees them. For tests and tools: slow.
    ///
    /// # Panics
    /// When slot or head are out of range, or the outputs are shorter than a head.
    pub fn read(
        &self,
        cache: &[u8],
        slot: KvSlot,
        head: usize,
        key: &mut [f32],
        value: &mut [f32],
    ) {
        assert!(head < self.num_kv_heads && (slot.offset as usize) < BLOCK_TOKENS, "{slot:?}");
        let token = slot.offset as usize;
        let dim = self.padded_dim();
        let start = slot.block as usize * self.block_bytes() + head * self.head_bytes();
        let bytes = &cache[start..start + self.head_bytes()];
        let f32_at =
            |index: usize| f32::from_le_bytes(std::array::from_fn(|byte| bytes[index * 4 + byte]));
        let bf16_at = |index: usize| {
            let bits = u16::from_le_bytes([bytes[index * 2], bytes[index * 2 + 1]]);
            half::bf16::from_bits(bits).to_f32()
        };
        let scales = dim * BLOCK_TOKENS / 2;
        let values = BLOCK_TOKENS * dim;
        for d in 0..self.head_dim {
            (key[d], value[d]) = match self.kind {
                KvKind::F32 => (f32_at(d * 16 + token), f32_at(values + token * dim + d)),
                KvKind::Bf16 => (bf16_at(d * 16 + token), bf16_at(values + token * dim + d)),
                KvKind::Q8 => {
                    let key = f32::from(bytes[(d / 4 * 16 + token) * 4 + d % 4]) - KEY_OFFSET;
                    let offset = values + SCALE_BYTES + (token / 4 * dim + d) * 4 + token % 4;
                    let value = f32::from(bytes[offset] as i8);
                    (key * bf16_at(scales + token), value * bf16_at(scales + 16 + token))
                }
            };
        }
    }
}

/// Rows of keys and values on their way into the cache: row i begins at `i * stride`.
#[derive(Clone, Copy, Debug)]
pub struct KvRows<'a> {
    /// Keys after rotary embedding, `kv_size` of each row.
    pub keys: &'a [f32],
    /// Values, `kv_size` of each row.
    pub values: &'a [f32],
    /// Distance between rows, in both: `kv_size`, or more where q, k and v lie side by side.
    pub stride: usize,
}

/// Writes row i to `slots[i]`, in parallel where there is enough to do. Of two rows with the
/// same slot the later one stays.
///
/// # Panics
/// When a slot lies outside the cache, the cache is not aligned to 8 bytes, or the rows are too
/// short.
pub fn write(
    pool: &mut Pool,
    isa: Isa,
    layout: &KvLayout,
    cache: &mut [u8],
    slots: &[KvSlot],
    rows: KvRows<'_>,
) {
    /// Values below which a wake-up of the pool costs more than it saves: some microseconds.
    const PARALLEL_VALUES_MIN: usize = 16_384;
    let num_blocks = cache.len() / layout.block_bytes();
    for slot in slots {
        assert!(
            (slot.block as usize) < num_blocks && (slot.offset as usize) < BLOCK_TOKENS,
            "{slot:?} in a cache of {num_blocks} blocks"
        );
    }
    if let Some(last) = slots.len().checked_sub(1) {
        let needed = last * rows.stride + layout.kv_size();
        assert!(rows.stride >= layout.kv_size(), "stride {} of kv rows", rows.stride);
        assert!(rows.keys.len() >= needed && rows.values.len() >= needed, "kv rows are missing");
    }
    assert!(cache.as_ptr().cast::<[u64; 8]>().is_aligned(), "the cache is not aligned");
    let num_shares =
        if slots.len() * layout.kv_size() < PARALLEL_VALUES_MIN { 1 } else { pool.num_threads() };
    let target = SendPointer(cache.as_mut_ptr());
    let share = |index: usize| {
        let job = WriteJob { layout, target: target.get(), slots, rows, index, num_shares };
        match layout.kind {
            KvKind::F32 => write_f32(job),
            KvKind::Bf16 => write_bf16(job),
            KvKind::Q8 => write_q8(isa, job),
        }
    };
    if num_shares == 1 {
        share(0);
    } else {
        pool.run(share);
    }
}

/// One thread's share of a write: the rows whose block is `index` modulo `num_shares`.
/// Only [`write`] makes one, and it has checked the slots, the rows and the alignment. Shares are
/// disjoint, because a block belongs to one of them.
#[derive(Clone, Copy)]
struct WriteJob<'a> {
    layout: &'a KvLayout,
    target: *mut u8,
    slots: &'a [KvSlot],
    rows: KvRows<'a>,
    index: usize,
    num_shares: usize,
}

/// One head of one row, and where it goes.
struct HeadWrite<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    /// Start of the head in its block.
    head: *mut u8,
    token: usize,
    padded_dim: usize,
}

impl<'a> WriteJob<'a> {
    /// The heads of this share, row by row.
    fn heads(self) -> impl Iterator<Item = HeadWrite<'a>> {
        let layout = self.layout;
        let num_rows = self.slots.len();
        let mine = (0..num_rows)
            .filter(move |row| self.slots[*row].block as usize % self.num_shares == self.index);
        mine.flat_map(move |row| {
            let slot = self.slots[row];
            (0..layout.num_kv_heads).map(move |head| {
                let start = row * self.rows.stride + head * layout.head_dim;
                let offset =
                    slot.block as usize * layout.block_bytes() + head * layout.head_bytes();
                HeadWrite {
                    keys: &self.rows.keys[start..start + layout.head_dim],
                    values: &self.rows.values[start..start + layout.head_dim],
                    // SAFETY: `write` checked that the block lies in the cache.
                    head: unsafe { self.target.add(offset) },
                    token: slot.offset as usize,
                    padded_dim: layout.padded_dim(),
                }
            })
        })
    }
}

fn write_f32(job: WriteJob<'_>) {
    for to in job.heads() {
        write_float(&to, |x| x);
    }
}

fn write_bf16(job: WriteJob<'_>) {
    for to in job.heads() {
        write_float(&to, |x| half::bf16::from_f32(x).to_bits());
    }
}

#[inline(always)]
fn write_float<T: Copy>(to: &HeadWrite<'_>, convert: impl Fn(f32) -> T) {
    let padding = std::iter::repeat(&0.0);
    let keys = to.head.cast::<T>();
    for (d, key) in to.keys.iter().chain(padding.clone()).take(to.padded_dim).enumerate() {
        // SAFETY: `[dim][16 tokens]` lies in this head of this block, which is this share's.
        unsafe { keys.add(d * BLOCK_TOKENS + to.token).write(convert(*key)) };
    }
    for (d, value) in to.values.iter().chain(padding).take(to.padded_dim).enumerate() {
        // SAFETY: as above; `[16 tokens][dim]` follows the keys.
        unsafe {
            keys.add((BLOCK_TOKENS + to.token) * to.padded_dim + d).write(convert(*value));
        }
    }
}

simd_fns! {
    fn write_q8(job: WriteJob<'_>) = write_q8_kernel;
}

#[inline(always)]
fn write_q8_kernel<S: Simd>(simd: S, job: WriteJob<'_>) {
    for to in job.heads() {
        write_q8_head(simd, &to);
    }
}

#[inline(always)]
fn write_q8_head<S: Simd>(simd: S, to: &HeadWrite<'_>) {
    let (mut keys, mut values) = ([0u8; HEAD_DIM_MAX], [0u8; HEAD_DIM_MAX]);
    let mut key_scale = quantize(simd, to.keys, KEY_OFFSET, &mut keys);
    let value_scale = quantize(simd, to.values, 0.0, &mut values);
    if value_scale.is_nan() {
        // Then no output that this token has a part in may look like a number.
        key_scale = value_scale;
    }
    let dim = to.padded_dim;
    let scales_offset = dim * BLOCK_TOKENS;
    // SAFETY: all offsets are those of the layout within this head of this block, which is
    // this share's, and `dim <= HEAD_DIM_MAX`.
    unsafe {
        for (d4, four) in keys[..dim].as_chunks::<4>().0.iter().enumerate() {
            to.head.add((d4 * BLOCK_TOKENS + to.token) * 4).cast::<[u8; 4]>().write(*four);
        }
        let scales = to.head.add(scales_offset).cast::<u16>();
        scales.add(to.token).write((key_scale.to_bits() >> 16) as u16);
        scales.add(BLOCK_TOKENS + to.token).write((value_scale.to_bits() >> 16) as u16);
        let quad = to.head.add(scales_offset + SCALE_BYTES + to.token / 4 * dim * 4);
        for (d, value) in values[..dim].iter().enumerate() {
            quad.add(d * 4 + to.token % 4).write(*value);
        }
    }
}

/// Quantizes one head into the first bytes of `out` as `round(x / scale) + offset` (padding as
/// x = 0) and returns the scale: a bf16, 0 for a head of zeros, NaN where not all is finite.
#[inline(always)]
fn quantize<S: Simd>(simd: S, x: &[f32], offset: f32, out: &mut [u8; HEAD_DIM_MAX]) -> f32 {
    let zero = simd.splat(0.0);
    let (mut max, mut poison) = (zero, zero);
    for index in 0..x.len().div_ceil(LANES) {
        let value = load_chunk(simd, x, index);
        max = simd.max(simd.max(value, simd.sub(zero, value)), max);
        poison = simd.fma(value, zero, poison);
    }
    let max = simd.reduce_max(max);
    let (scale, inverse) = if simd.reduce_add(poison) != 0.0 {
        (f32::NAN, 0.0)
    } else if max < MAX_MIN {
        (0.0, 0.0)
    } else {
        // Rounded up, so that no |q| exceeds 127.
        let bits = (max / 127.0).to_bits() + 0xffff;
        let scale = f32::from_bits(bits & 0xffff_0000);
        (scale, 1.0 / scale)
    };
    let (factor, offset) = (simd.splat(inverse), simd.splat(offset));
    let mut discarded = [0u8; LANES];
    let (out_chunks, _) = out.as_chunks_mut::<LANES>();
    for (index, out) in out_chunks.iter_mut().take(x.len().div_ceil(LANES)).enumerate() {
        let q = simd.round(simd.mul(load_chunk(simd, x, index), factor));
        let q = simd.to_int(simd.add(q, offset));
        // SAFETY: both arrays have sixteen bytes.
        unsafe { simd.store_digits(discarded.as_mut_ptr(), out.as_mut_ptr(), q) };
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::test_rows::values;
    use crate::{AlignedBytes, Isa};

    const KINDS: [KvKind; 3] = [KvKind::F32, KvKind::Bf16, KvKind::Q8];
    const NUM_BLOCKS: usize = 5;

    fn slots(num_rows: usize) -> Vec<KvSlot> {
        // Every slot once, in an order that jumps between blocks.
        (0..num_rows)
            .map(|row| row * 37 % (NUM_BLOCKS * BLOCK_TOKENS))
            .map(|at| KvSlot { block: (at / 16) as u32, offset: (at % 16) as u32 })
            .collect()
    }

    fn written(layout: &KvLayout, isa: Isa, num_threads: usize, num_rows: usize) -> AlignedBytes {
        let mut cache = AlignedBytes::zeroed(NUM_BLOCKS * layout.block_bytes()).unwrap();
        // What an earlier owner of the blocks left behind must not matter.
        cache.fill(0xff);
        let stride = layout.kv_size() + 3;
        let keys = values(num_rows * stride, 1, 2.0);
        let values = values(num_rows * stride, 2, 5.0);
        let rows = KvRows { keys: &keys, values: &values, stride };
        let mut pool = Pool::new(num_threads).unwrap();
        write(&mut pool, isa, layout, &mut cache, &slots(num_rows), rows);
        cache
    }

    #[test]
    fn what_is_written_is_read_back() {
        for kind in KINDS {
            for (num_heads, head_dim) in [(1, 2), (3, 18), (3, 64), (2, 80), (1, 256), (9, 32)] {
                let layout = KvLayout::new(kind, num_heads, head_dim).unwrap();
                let num_rows = NUM_BLOCKS * BLOCK_TOKENS;
                let stride = layout.kv_size() + 3;
                let keys = values(num_rows * stride, 1, 2.0);
                let values = values(num_rows * stride, 2, 5.0);
                let cache = written(&layout, Isa::best(), 2, num_rows);
                let (mut key, mut value) = (vec![0.0; head_dim], vec![0.0; head_dim]);
                for (row, slot) in slots(num_rows).into_iter().enumerate() {
                    for head in 0..num_heads {
                        layout.read(&cache, slot, head, &mut key, &mut value);
                        let at = row * stride + head * head_dim;
                        check(kind, &key, &keys[at..at + head_dim]);
                        check(kind, &value, &values[at..at + head_dim]);
                    }
                }
            }
        }
    }

    #[track_caller]
    fn check(kind: KvKind, found: &[f32], expected: &[f32]) {
        let max = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        for (found, expected) in found.iter().zip(expected) {
            let bound = match kind {
                KvKind::F32 => 0.0,
                KvKind::Bf16 => expected.abs() / 256.0,
                // Half a step, of a scale that is up to 1/128 too large.
                KvKind::Q8 => max / 127.0 * 0.504,
            };
            assert!((found - expected).abs() <= bound, "{kind:?}: {found} for {expected}");
        }
    }

    #[test]
    fn bytes_are_the_same_on_every_path_and_any_number_of_threads() {
        for kind in KINDS {
            let layout = KvLayout::new(kind, 9, 64).unwrap();
            let expected = written(&layout, Isa::Portable, 1, 80);
            for isa in Isa::available() {
                for num_threads in [1, 2, 3] {
                    let found = written(&layout, isa, num_threads, 80);
                    assert!(*found == *expected, "{kind:?} {isa:?} {num_threads} threads");
                }
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_not_a_number_is_not_hidden() {
        let layout = KvLayout::new(KvKind::Q8, 1, 32).unwrap();
        let mut cache = AlignedBytes::zeroed(layout.block_bytes()).unwrap();
        let mut keys = vec![0.0; 3 * 32];
        let mut values = vec![1e-38; 3 * 32];
        keys[32 + 5] = f32::INFINITY;
        values[64 + 9] = f32::NAN;
        let slots: Vec<KvSlot> = (0..3).map(|offset| KvSlot { block: 0, offset }).collect();
        let rows = KvRows { keys: &keys, values: &values, stride: 32 };
        let mut pool = Pool::new(1).unwrap();
        for isa in Isa::available() {
            write(&mut pool, isa, &layout, &mut cache, &slots, rows);
            let (mut key, mut value) = ([1.0; 32], [1.0; 32]);
            layout.read(&cache, slots[0], 0, &mut key, &mut value);
            assert_eq!((key, value), ([0.0; 32], [0.0; 32]));
            for slot in &slots[1..] {
                layout.read(&cache, *slot, 0, &mut key, &mut value);
                assert!(key.iter().all(|key| key.is_nan()));
            }
        }
    }

    #[test]
    #[should_panic(expected = "in a cache of 1 blocks")]
    fn a_slot_outside_the_cache_is_refused() {
        let layout = KvLayout::new(KvKind::F32, 1, 2).unwrap();
        let mut cache = AlignedBytes::zeroed(layout.block_bytes()).unwrap();
        let rows = KvRows { keys: &[0.0; 2], values: &[0.0; 2], stride: 2 };
        let slot = KvSlot { block: 1, offset: 0 };
        write(&mut Pool::new(1).unwrap(), Isa::Portable, &layout, &mut cache, &[slot], rows);
    }

    #[test]
    fn odd_layouts_are_refused() {
        for head_dim in [0, 1, 3, 258, usize::MAX] {
            assert!(KvLayout::new(KvKind::F32, 1, head_dim).is_err());
        }
        assert!(KvLayout::new(KvKind::F32, 0, 64).is_err());
    }
}
