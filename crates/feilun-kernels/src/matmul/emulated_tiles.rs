//! The tile instructions in plain Rust, after the operation sections of Intel's manual (Software
//! Developer's Manual, volume 2). What would be a fault there is a failed assertion here.

use super::tile_unit::{NUM_TILES, TileConfig, TileUnit};

type Tile = [[u8; 64]; 16];

/// One thread's tiles.
#[derive(Debug)]
pub(crate) struct EmulatedTiles {
    config: Option<TileConfig>,
    tiles: [Tile; NUM_TILES],
}

impl EmulatedTiles {
    pub(crate) fn new() -> EmulatedTiles {
        EmulatedTiles { config: None, tiles: [[[0; 64]; 16]; NUM_TILES] }
    }

    /// Rows and bytes of a row.
    #[expect(clippy::expect_used, reason = "only tests use this file")]
    fn shape(&self, tile: usize) -> (usize, usize) {
        let (rows, row_bytes) = self.config.expect("tiles are configured").shape(tile);
        assert!((1..=16).contains(&rows) && (1..=64).contains(&row_bytes), "tile {tile}");
        (rows, row_bytes)
    }

    /// Rows, 32-bit columns and 32-bit depth of a product.
    fn product_shape(&self, c: usize, a: usize, b: usize) -> (usize, usize, usize) {
        assert!(c != a && c != b && a != b, "the operands are three tiles");
        let [(rows, c_bytes), (a_rows, a_bytes), (b_rows, b_bytes)] =
            [c, a, b].map(|tile| self.shape(tile));
        assert_eq!((a_rows, b_bytes, b_rows), (rows, c_bytes, a_bytes / 4), "shapes");
        assert!(a_bytes % 4 == 0 && b_bytes % 4 == 0);
        (rows, c_bytes / 4, a_bytes / 4)
    }

    fn word(&self, tile: usize, row: usize, col: usize) -> [u8; 4] {
        std::array::from_fn(|j| self.tiles[tile][row][4 * col + j])
    }

    /// Replaces `rows` x `cols` words; the rest of the tile becomes zeros.
    fn replace(
        &mut self,
        tile: usize,
        (rows, cols): (usize, usize),
        mut word: impl FnMut(&Self, usize, usize) -> [u8; 4],
    ) {
        let mut result = [[0; 64]; 16];
        for (m, row) in result.iter_mut().enumerate().take(rows) {
            for (n, out) in row.chunks_exact_mut(4).enumerate().take(cols) {
                out.copy_from_slice(&word(self, m, n));
            }
        }
        self.tiles[tile] = result;
    }
}

impl TileUnit for EmulatedTiles {
    unsafe fn configure(&mut self, config: &TileConfig) {
        *self = EmulatedTiles::new();
        self.config = Some(*config);
    }

    unsafe fn release(&mut self) {
        *self = EmulatedTiles::new();
    }

    unsafe fn zero<const TILE: usize>(&mut self) {
        self.shape(TILE);
        self.tiles[TILE] = [[0; 64]; 16];
    }

    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize) {
        let (rows, row_bytes) = self.shape(TILE);
        self.tiles[TILE] = [[0; 64]; 16];
        for (row, out) in self.tiles[TILE].iter_mut().enumerate().take(rows) {
            // SAFETY: the caller promises each row's bytes.
            let row = unsafe { std::slice::from_raw_parts(from.add(row * stride), row_bytes) };
            out[..row_bytes].copy_from_slice(row);
        }
    }

    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize) {
        let (rows, row_bytes) = self.shape(TILE);
        for (row, bytes) in self.tiles[TILE].iter().enumerate().take(rows) {
            // SAFETY: the caller promises each row's bytes.
            unsafe { to.add(row * stride).copy_from_nonoverlapping(bytes.as_ptr(), row_bytes) };
        }
    }

    unsafe fn dot_i8<const C: usize, const A: usize, const B: usize>(&mut self) {
        let (rows, cols, depth) = self.product_shape(C, A, B);
        self.replace(C, (rows, cols), |tiles, m, n| {
            let mut sum = i32::from_le_bytes(tiles.word(C, m, n));
            for k in 0..depth {
                for (a, b) in tiles.word(A, m, k).into_iter().zip(tiles.word(B, k, n)) {
                    let product = i32::from(a.cast_signed()) * i32::from(b.cast_signed());
                    sum = sum.wrapping_add(product);
                }
            }
            sum.to_le_bytes()
        });
    }

    unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        let (rows, cols, depth) = self.product_shape(C, A, B);
        self.replace(C, (rows, cols), |tiles, m, n| {
            // Two sums, one over the first elements of the pairs, one over the second.
            let mut sums = [0.0; 2];
            for k in 0..depth {
                let (a, b) = (pair(tiles.word(A, m, k)), pair(tiles.word(B, k, n)));
                for j in 0..2 {
                    sums[j] = flush(flush(a[j]).mul_add(flush(b[j]), sums[j]));
                }
            }
            let c = flush(f32::from_le_bytes(tiles.word(C, m, n)));
            flush(c + flush(sums[0] + sums[1])).to_le_bytes()
        });
    }
}

fn pair(word: [u8; 4]) -> [f32; 2] {
    [[0, 0, word[0], word[1]], [0, 0, word[2], word[3]]].map(f32::from_le_bytes)
}

/// Denormals are zeros, on the way in and on the way out.
fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::matmul::tile_unit::Amx;
    use crate::test_support::Random;

    /// `C` after both products, for random bytes as operands.
    fn products(unit: &mut impl TileUnit, shape: (u8, u8, u8), seed: u64) -> Vec<u8> {
        let (rows, cols, depth) = shape;
        let (c, a) = ((rows, 4 * u16::from(cols)), (rows, 4 * u16::from(depth)));
        let b = (depth, 4 * u16::from(cols));
        let config = TileConfig::new([c, a, b, c, c, c, c, c]);
        let mut random = Random(seed);
        let mut bytes = |len: usize| -> Vec<u8> { (0..len).map(|_| random.next() as u8).collect() };
        let (a, b) = (bytes(16 * 80), bytes(16 * 80));
        // bf16 operands of moderate size, so that sums stay finite.
        let moderate = |bytes: &[u8]| -> Vec<u8> {
            let small =
                |(i, &byte): (usize, &u8)| if i % 2 == 1 { byte & 0xbf | 0x30 } else { byte };
            bytes.iter().enumerate().map(small).collect()
        };
        let mut out = vec![0xee; 2 * 16 * 96];
        // SAFETY: the unit is available, the shapes fit, and the buffers have 16 rows of at
        // least 64 bytes.
        unsafe {
            unit.configure(&config);
            unit.zero::<0>();
            unit.load::<1>(a.as_ptr(), 80);
            unit.load::<2>(b.as_ptr(), 80);
            unit.dot_i8::<0, 1, 2>();
            unit.dot_i8::<0, 1, 2>();
            unit.store::<0>(out.as_mut_ptr(), 96);
            unit.zero::<3>();
            unit.load::<1>(moderate(&a).as_ptr(), 80);
            unit.load::<2>(moderate(&b).as_ptr(), 80);
            unit.dot_bf16::<3, 1, 2>();
            unit.store::<3>(out.as_mut_ptr().add(16 * 96), 96);
            unit.release();
        }
        out
    }

    const SHAPES: [(u8, u8, u8); 5] = [(16, 16, 16), (16, 16, 8), (8, 16, 4), (1, 1, 1), (5, 3, 7)];

    #[test]
    fn products_are_the_sums_of_products() {
        for (seed, (rows, cols, depth)) in (0..).zip(SHAPES) {
            let out = products(&mut EmulatedTiles::new(), (rows, cols, depth), seed);
            let mut random = Random(seed);
            let mut bytes =
                |len: usize| -> Vec<u8> { (0..len).map(|_| random.next() as u8).collect() };
            let (a, b) = (bytes(16 * 80), bytes(16 * 80));
            for m in 0..16 {
                for n in 0..16 {
                    let found: [u8; 4] = std::array::from_fn(|j| out[m * 96 + 4 * n + j]);
                    if m >= rows.into() || n >= cols.into() {
                        assert_eq!(found, [0xee; 4], "outside of the tile nothing is written");
                        continue;
                    }
                    let products = (0..4 * usize::from(depth)).map(|k| {
                        let b = b[k / 4 * 80 + 4 * n + k % 4].cast_signed();
                        i32::from(a[m * 80 + k].cast_signed()) * i32::from(b)
                    });
                    assert_eq!(i32::from_le_bytes(found), 2 * products.sum::<i32>());
                }
            }
        }
    }

    #[test]
    fn denormals_count_as_zeros() {
        let tiny = half::bf16::from_bits(1).to_f32();
        assert!(tiny > 0.0);
        assert_eq!((flush(tiny), flush(-tiny).to_bits()), (0.0, (-0.0_f32).to_bits()));
        assert_eq!(flush(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
    }

    /// On a machine with AMX, the processor agrees with this file.
    #[test]
    fn the_processor_agrees() {
        if Isa::Amx.is_available() {
            for (seed, shape) in (0..).zip(SHAPES) {
                let expected = products(&mut EmulatedTiles::new(), shape, seed);
                assert_eq!(products(&mut Amx, shape, seed), expected, "{shape:?}");
            }
        }
    }
}
