//! The tile registers of AMX, as the kernels that use them see them.
//!
//! A tile is up to 16 rows of up to 64 bytes. [`TileUnit`] is the few instructions that the
//! kernels are made of; [`Amx`] issues them, and `emulated_tiles` computes what Intel's manual
//! says they do, so that the kernels' logic is tested on machines without AMX.
//!
//! The intrinsics are not stable in Rust, `asm!` is. The compiler itself never uses a tile, so
//! what one statement leaves in a tile register is there for the next one. Shapes come from a
//! configuration of each thread's own, which an interrupted thread gets back with its registers.

/// Number of tile registers.
pub(crate) const NUM_TILES: usize = 8;

/// What `ldtilecfg` reads: all of its 64 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row of each tile.
    row_bytes: [u16; 2 * NUM_TILES],
    /// Rows of each tile.
    rows: [u8; 2 * NUM_TILES],
}

const _: () = assert!(size_of::<TileConfig>() == 64, "ldtilecfg reads 64 bytes");

impl TileConfig {
    /// Tiles of these `(rows, bytes of a row)`.
    pub(crate) const fn new(shapes: [(u8, u16); NUM_TILES]) -> TileConfig {
        let mut config = TileConfig {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 2 * NUM_TILES],
            rows: [0; 2 * NUM_TILES],
        };
        let mut tile = 0;
        while tile < NUM_TILES {
            (config.rows[tile], config.row_bytes[tile]) = shapes[tile];
            tile += 1;
        }
        config
    }

    /// `(rows, bytes of a row)` of a tile.
    #[cfg(test)]
    pub(crate) fn shape(&self, tile: usize) -> (usize, usize) {
        assert_eq!((self.palette, self.start_row, self.reserved), (1, 0, [0; 14]));
        (self.rows[tile].into(), self.row_bytes[tile].into())
    }
}

/// The tile instructions. `TILE`, `C`, `A` and `B` are register numbers.
///
/// # Safety
/// For every method: the machine has the instructions and the process the permission, tiles were
/// configured on this thread (but for `configure`), operands have shapes that fit each other, and
/// the memory of `load` and `store` is there for every row of the tile, `stride` bytes apart.
pub(crate) trait TileUnit {
    unsafe fn configure(&mut self, config: &TileConfig);
    /// Back to no tiles at all, which makes a thread cheaper to interrupt.
    unsafe fn release(&mut self);
    unsafe fn zero<const TILE: usize>(&mut self);
    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize);
    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize);
    /// `C[m][n] += Σ A[m][4 k + j] * B[k][4 n + j]`, signed bytes to 32-bit sums.
    unsafe fn dot_i8<const C: usize, const A: usize, const B: usize>(&mut self);
    /// `C[m][n] += Σ A[m][2 k + j] * B[k][2 n + j]`, bf16 to f32.
    unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// The processor's own tiles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx;

/// A statement that may change tiles.
macro_rules! tile_asm {
    ($text:literal, [$($operands:tt)*] $($options:ident),*) => {
        std::arch::asm!(
            $text, $($operands)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags $(, $options)*)
        )
    };
}

#[expect(unsafe_op_in_unsafe_fn, reason = "each method is one instruction")]
impl TileUnit for Amx {
    #[inline]
    unsafe fn configure(&mut self, config: &TileConfig) {
        // No `nomem` or `readonly`: what was written to `config` must be in memory by now. (GCC
        // 12.2 drops such stores where an operand looks narrower than the 64 bytes.)
        tile_asm!("ldtilecfg [{config}]", [config = in(reg) std::ptr::from_ref(config),]);
    }

    #[inline]
    unsafe fn release(&mut self) {
        tile_asm!("tilerelease", [] nomem);
    }

    #[inline]
    unsafe fn zero<const TILE: usize>(&mut self) {
        tile_asm!("tilezero tmm{tile}", [tile = const TILE,] nomem);
    }

    #[inline]
    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize) {
        tile_asm!(
            "tileloadd tmm{tile}, [{from} + {stride}*1]",
            [tile = const TILE, from = in(reg) from, stride = in(reg) stride,] readonly
        );
    }

    #[inline]
    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize) {
        tile_asm!(
            "tilestored [{to} + {stride}*1], tmm{tile}",
            [tile = const TILE, to = in(reg) to, stride = in(reg) stride,]
        );
    }

    #[inline]
    unsafe fn dot_i8<const C: usize, const A: usize, const B: usize>(&mut self) {
        tile_asm!(
            "tdpbssd tmm{c}, tmm{a}, tmm{b}",
            [c = const C, a = const A, b = const B,] nomem
        );
    }

    #[inline]
    unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        tile_asm!(
            "tdpbf16ps tmm{c}, tmm{a}, tmm{b}",
            [c = const C, a = const A, b = const B,] nomem
        );
    }
}

/// 64 aligned bytes: a row of a tile, a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

impl Line {
    pub(crate) const ZERO: Line = Line([0; 64]);
}

thread_local! {
    /// Operands unpacked for the tiles, per thread; grows to the widest matrix once.
    pub(crate) static LINES: std::cell::Cell<Vec<Line>> = const { std::cell::Cell::new(Vec::new()) };
}
