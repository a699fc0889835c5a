//! The integer kernels on AMX tiles, for eight and more rows; the sums are those of
//! [`avx512`](super::avx512), bit for bit.
//!
//! A panel's quants are unpacked once, to signed bytes with the zero point taken off, and serve
//! every tile of rows. The columns under one scale are a *run*: a group of 32, or half a group in
//! Q6_K. A run is two tile products, rows x run x 16 lanes, with the high digits and with the low
//! ones; a row's digits lie in the order that a tile of A wants, the unpacked steps in that of a
//! tile of B. The products go through memory to the vector unit, which scales and adds them in
//! the order that every path keeps. While it does so with one run, the tile unit is busy with
//! the next one: runs take turns with two sets of tiles.

#![expect(unsafe_op_in_unsafe_fn, reason = "every line here is an intrinsic or pointer step")]

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::avx512::{self, load_scales, load_steps, type_of};
use super::tile_unit::{Amx, LINES, Line, TileConfig, TileUnit};
use super::{Sums, TILE_ROWS, Tile, tile};
use crate::BlockType;
use crate::pack::{GROUP_COLS, PANEL_ROWS, group_bytes, has_min, zero_point};
use crate::rows::{GROUP_DIGITS, NUM_SUMS, QuantTile, RowTiles};

/// Tiles of fewer rows stay with AVX-512: a tile product takes as long as it has rows, but
/// unpacking a panel for it does not get shorter.
pub(super) const MIN_HEIGHT: usize = 8;

/// Groups unpacked: eight steps each.
const GROUP_LINES: usize = 8;

/// The columns under one scale.
const fn run_cols(block_type: BlockType) -> usize {
    match block_type {
        BlockType::Q6K => GROUP_COLS / 2,
        _ => GROUP_COLS,
    }
}

/// One panel (scales, quants) with some tiles of rows; `done(tile, sums)`.
///
/// # Safety
/// AMX and AVX-512 are there; scales and quants are one panel of the type, as many groups as the
/// rows.
pub(super) unsafe fn panel(
    block_type: BlockType,
    section: (&[u8], &[u8]),
    rows: &RowTiles,
    tiles: Range<usize>,
    done: impl FnMut(Tile, &Sums),
) {
    #[cfg(test)]
    if !crate::Isa::Amx.is_available() {
        let mut unit = super::emulated_tiles::EmulatedTiles::new();
        return panel_on(&mut unit, block_type, section, rows, tiles, done);
    }
    panel_on(&mut Amx, block_type, section, rows, tiles, done);
}

unsafe fn panel_on<U: TileUnit>(
    unit: &mut U,
    block_type: BlockType,
    section: (&[u8], &[u8]),
    rows: &RowTiles,
    tiles: Range<usize>,
    mut done: impl FnMut(Tile, &Sums),
) {
    let (scales, quants) = section;
    let mut lines = LINES.take();
    unpack(block_type, quants, &mut lines);
    let mut sums: Sums = [[0.0; PANEL_ROWS]; TILE_ROWS];
    let mut products = MaybeUninit::uninit();
    let mut configured = 0;
    for index in tiles.clone() {
        let tile = tile(rows.num_rows, index);
        let x = rows.quant_tile(tile);
        if tile.height < MIN_HEIGHT {
            avx512::integer_tile(block_type, &[section], &x, std::slice::from_mut(&mut sums));
        } else {
            if configured != tile.height {
                unit.configure(&config(tile.height, run_cols(block_type)));
                configured = tile.height;
            }
            let panel = Panel {
                scales,
                lines: &lines,
                // The first tile's work hides the way of the next panel from memory.
                next: (index == tiles.start).then_some(quants.as_ptr_range().end),
            };
            tile_sums(unit, block_type, &panel, &x, &mut products, &mut sums);
        }
        done(tile, &sums);
    }
    if configured != 0 {
        unit.release();
    }
    LINES.set(lines);
}

/// Tiles 0 to 3 are products, 4 and 5 digits of the rows, 6 and 7 weights.
fn config(height: usize, run_cols: usize) -> TileConfig {
    // All of them fit the fields: at most 16 rows and 64 bytes.
    let products = (height as u8, 64);
    let digits = (height as u8, run_cols as u16);
    let weights = (run_cols as u8 / 4, 64);
    TileConfig::new([products, products, products, products, digits, digits, weights, weights])
}

/// A panel made ready for the tiles.
struct Panel<'a> {
    scales: &'a [u8],
    /// Per group eight steps of signed bytes.
    lines: &'a [Line],
    /// Where the next panel lies, if it is to be asked for.
    next: Option<*const u8>,
}

/// Products of two runs: `[set][high, low][row][lane]`.
type Products = [[[[i32; PANEL_ROWS]; TILE_ROWS]; 2]; 2];

/// A match over the quantized types, each with its number as `TYPE`.
macro_rules! by_type {
    ($block_type:expr, $($call:tt)*) => {
        by_type!(@ [Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4K Q5K Q6K] $block_type, ($($call)*))
    };
    (@ [$($type:ident)*] $block_type:expr, $call:tt) => {
        match $block_type {
            $(BlockType::$type => {
                const TYPE: usize = BlockType::$type as usize;
                by_type!(@call TYPE $call)
            })*
            BlockType::F32 | BlockType::F16 | BlockType::Bf16 => {}
        }
    };
    (@call $type:ident ($function:ident [$($generic:tt),*] ($($argument:expr),*))) => {
        $function::<$type $(, $generic)*>($($argument),*)
    };
}

unsafe fn unpack(block_type: BlockType, quants: &[u8], lines: &mut Vec<Line>) {
    by_type!(block_type, unpack_type[](quants, lines));
}

unsafe fn tile_sums<U: TileUnit>(
    unit: &mut U,
    block_type: BlockType,
    panel: &Panel<'_>,
    x: &QuantTile<'_>,
    products: &mut MaybeUninit<Products>,
    sums: &mut Sums,
) {
    match x.height {
        8 => by_type!(block_type, tile_type[8, U](unit, panel, x, products, sums)),
        _ => by_type!(block_type, tile_type[16, U](unit, panel, x, products, sums)),
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn unpack_type<const TYPE: usize>(quants: &[u8], lines: &mut Vec<Line>) {
    let group_bytes = const { group_bytes(type_of(TYPE)) };
    // The zero point of Q8_0 is 128: taking it off flips the highest bit, as the wrapping
    // subtraction of bytes does.
    let zero = _mm512_set1_epi8(zero_point(type_of(TYPE)) as i8);
    let num_groups = quants.len() / group_bytes;
    lines.resize(num_groups * GROUP_LINES, Line::ZERO);
    let groups = quants.chunks_exact(group_bytes);
    for (group, lines) in groups.zip(lines.chunks_exact_mut(GROUP_LINES)) {
        let steps = load_steps::<TYPE>(group.as_ptr());
        for (step, line) in steps.into_iter().zip(lines) {
            _mm512_store_si512(line.0.as_mut_ptr().cast(), _mm512_sub_epi8(step, zero));
        }
    }
}

/// `a += float(128 high + low) * (scale * x scale)`, and what `$more` adds. In asm, since the
/// compiler would put off the sums of all rows until it runs out of registers.
macro_rules! add_row {
    (
        $acc:expr, $row:ident, $products:ident, $scale:ident, $x_scales:ident,
        [$more:literal] [$($operands:tt)*]
    ) => {{
        let (dot, scale): (__m512i, __m512);
        std::arch::asm!(
            "vpslld {d}, zmmword ptr [{p} + {r}], 7",
            "vpaddd {d}, {d}, zmmword ptr [{p} + {r} + {low}]",
            "vcvtdq2ps {d}, {d}",
            "vmulps {f}, {scale}, dword ptr [{s} + {xr}]{{1to16}}",
            "vfmadd231ps {a}, {d}, {f}",
            $more,
            a = inout(zmm_reg) $acc, d = out(zmm_reg) dot, f = out(zmm_reg) scale,
            p = in(reg) $products, s = in(reg) $x_scales, scale = in(zmm_reg) $scale,
            r = const 4 * PANEL_ROWS * $row, low = const 4 * PANEL_ROWS * TILE_ROWS,
            xr = const 4 * $row,
            $($operands)*
            options(readonly, nostack, preserves_flags)
        );
        // Named outputs: the assembler gets a wrong register name for anonymous ones.
        let _ = (dot, scale);
    }};
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
unsafe fn tile_type<const TYPE: usize, const HEIGHT: usize, U: TileUnit>(
    unit: &mut U,
    panel: &Panel<'_>,
    x: &QuantTile<'_>,
    products: &mut MaybeUninit<Products>,
    sums: &mut Sums,
) {
    let run_cols = const { run_cols(type_of(TYPE)) };
    let runs_per_group = GROUP_COLS / run_cols;
    let num_runs = panel.lines.len() / GROUP_LINES * runs_per_group;
    // What is asked for of the next panel with each run.
    let run_bytes = const { group_bytes(type_of(TYPE)) } / runs_per_group;
    let scale_bytes = panel.scales.len() / num_runs.max(1);
    debug_assert_eq!(x.height, HEIGHT);
    debug_assert_eq!(x.quants.len() * runs_per_group, num_runs * HEIGHT * GROUP_DIGITS);
    let products: *mut [[[i32; PANEL_ROWS]; TILE_ROWS]; 2] = products.as_mut_ptr().cast();
    let mut acc = [_mm512_setzero_ps(); HEIGHT];

    // Written out, since a loop would keep the sums in memory instead of registers.
    macro_rules! each_row {
        ($row:ident => $body:block) => {
            each_row!(@ $row $body [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15])
        };
        (@ $row:ident $body:block [$($index:literal)*]) => {$({
            const $row: usize = $index;
            if $row < HEIGHT $body
        })*};
    }
    // Both products of a run, on a set of tiles.
    macro_rules! multiply {
        ($run:expr => set $set:literal: $high:literal $low:literal $weights:literal) => {{
            let run: usize = $run;
            let group = run / runs_per_group;
            let col = run % runs_per_group * run_cols;
            let weights = panel.lines.as_ptr().add(group * GROUP_LINES + col / 4);
            let digits = x.quants.as_ptr().add(group * HEIGHT * GROUP_DIGITS + col).cast::<u8>();
            let out = products.add($set).cast::<u8>();
            unit.load::<$weights>(weights.cast(), size_of::<Line>());
            unit.zero::<$high>();
            unit.load::<4>(digits, GROUP_DIGITS);
            unit.dot_i8::<$high, 4, $weights>();
            unit.zero::<$low>();
            unit.load::<5>(digits.add(GROUP_COLS), GROUP_DIGITS);
            unit.dot_i8::<$low, 5, $weights>();
            unit.store::<$high>(out, 4 * PANEL_ROWS);
            unit.store::<$low>(out.add(4 * PANEL_ROWS * TILE_ROWS), 4 * PANEL_ROWS);
        }};
    }
    macro_rules! add {
        ($run:expr, set $set:literal) => {{
            let run: usize = $run;
            let group = run / runs_per_group;
            if let Some(next) = panel.next {
                for line in (0..run_bytes).step_by(64) {
                    let line = next.wrapping_add(panel.scales.len() + run * run_bytes + line);
                    _mm_prefetch::<_MM_HINT_T1>(line.cast());
                }
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(run * scale_bytes).cast());
            }
            let scales = load_scales::<TYPE>(panel.scales.as_ptr(), group);
            let scale = if runs_per_group == 2 && $set == 1 { scales.high } else { scales.low };
            let x_scales = x.scales.as_ptr().add(group * HEIGHT);
            let x_sums = x.sums.as_ptr().add(group * NUM_SUMS * HEIGHT);
            let products = products.add($set);
            each_row!(ROW => {
                if const { has_min(type_of(TYPE)) } {
                    add_row!(
                        acc[ROW], ROW, products, scale, x_scales,
                        ["vfmadd231ps {a}, {min}, dword ptr [{t} + {xr}]{{1to16}}"]
                        [min = in(zmm_reg) scales.min, t = in(reg) x_sums,]
                    );
                } else {
                    add_row!(acc[ROW], ROW, products, scale, x_scales, [""] []);
                }
            });
        }};
    }

    multiply!(0 => set 0: 0 1 6);
    for run in (0..num_runs).step_by(2) {
        if run + 1 < num_runs {
            multiply!(run + 1 => set 1: 2 3 7);
        }
        add!(run, set 0);
        if run + 1 < num_runs {
            if run + 2 < num_runs {
                multiply!(run + 2 => set 0: 0 1 6);
            }
            add!(run + 1, set 1);
        }
    }
    for (sums, acc) in sums.iter_mut().zip(acc) {
        _mm512_storeu_ps(sums.as_mut_ptr(), acc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::matmul::emulated_tiles::EmulatedTiles;
    use crate::rows::RowForms;
    use crate::test_support::{Random, random_rows};
    use crate::{PackedMatrix, Pool};

    /// The sums of the second of three panels for every row, by whoever computes them.
    fn sums_of(
        weights: &PackedMatrix,
        rows: &RowTiles,
        compute: impl FnOnce((&[u8], &[u8]), Range<usize>, &mut dyn FnMut(Tile, &Sums)),
    ) -> Vec<u32> {
        let mut found = Vec::new();
        let section = weights.panel(1).split_at(weights.quant_offset);
        compute(section, 0..rows.num_rows.div_ceil(TILE_ROWS), &mut |tile, sums| {
            found.extend(sums[..tile.used].iter().flatten().map(|sum| sum.to_bits()));
        });
        found
    }

    /// The kernel on emulated tiles, and on real ones where there are any, against AVX-512.
    #[test]
    fn tiles_give_the_sums_of_avx512() {
        if !Isa::Avx512.is_available() {
            return;
        }
        let mut random = Random(11);
        let mut pool = Pool::new(1).unwrap();
        let quantized = |block_type: &BlockType| crate::pack::is_quantized(*block_type);
        for block_type in BlockType::ALL.into_iter().filter(quantized) {
            for (num_rows, blocks) in [(5, 1), (8, 3), (9, 2), (16, 1), (16, 3), (33, 2), (40, 5)] {
                let cols = block_type.block_len() * blocks;
                let stored = random_rows(block_type, 48, cols, &mut random);
                let weights =
                    PackedMatrix::pack(&mut pool, block_type, 48, cols, &stored, |row| row)
                        .unwrap();
                let mut rows = RowTiles::new(num_rows, cols).unwrap();
                let forms = RowForms { quantized: true, float: false };
                rows.fill(&mut pool, Isa::Portable, forms, num_rows, cols, |row, out| {
                    let mut random = Random((100 * num_rows + row) as u64);
                    out.fill_with(|| random.unit());
                });
                let expected = sums_of(&weights, &rows, |section, tiles, done| {
                    for index in tiles {
                        let tile = tile(num_rows, index);
                        let mut sums: Sums = [[0.0; PANEL_ROWS]; TILE_ROWS];
                        let out = std::slice::from_mut(&mut sums);
                        // SAFETY: the path was detected, the section is a panel of the type.
                        unsafe {
                            avx512::integer_tile(
                                block_type,
                                &[section],
                                &rows.quant_tile(tile),
                                out,
                            )
                        };
                        done(tile, &sums);
                    }
                });
                let label = format!("{block_type} {num_rows} rows, {cols} columns");
                let emulated = sums_of(&weights, &rows, |section, tiles, done| {
                    let unit = &mut EmulatedTiles::new();
                    // SAFETY: as above, and the emulation runs anywhere.
                    unsafe { panel_on(unit, block_type, section, &rows, tiles, done) };
                });
                assert!(emulated == expected, "{label}, emulated");
                if Isa::Amx.is_available() {
                    let real = sums_of(&weights, &rows, |section, tiles, done| {
                        // SAFETY: as above, and AMX was detected.
                        unsafe { panel_on(&mut Amx, block_type, section, &rows, tiles, done) };
                    });
                    assert!(real == expected, "{label}, real tiles");
                }
            }
        }
    }
}
