//! The most that the tile unit can do: products of whole tiles, four chains side by side, and
//! nothing to load or store. For the roofs of [`machine`](crate::machine).

use super::tile_unit::{Amx, NUM_TILES, TileConfig, TileUnit};

/// Times four products.
const ROUNDS: usize = 2_000;
/// Operations of one call: 16 rows x 16 columns x 64 bytes, a multiply and an add each.
pub(crate) const INT8_OPS: f64 = (ROUNDS * 4 * 16 * 16 * 64 * 2) as f64;
/// As [`INT8_OPS`], with half as many elements in a row.
pub(crate) const BF16_OPS: f64 = INT8_OPS / 2.0;

/// # Safety
/// AMX was detected.
pub(crate) unsafe fn int8_products() {
    // SAFETY: promised by the caller.
    unsafe { on_zeros(&mut Amx, ROUNDS, four_int8) }
}

/// # Safety
/// AMX was detected.
pub(crate) unsafe fn bf16_products() {
    // SAFETY: promised by the caller.
    unsafe { on_zeros(&mut Amx, ROUNDS, four_bf16) }
}

/// # Safety
/// The unit is available.
unsafe fn on_zeros<U: TileUnit>(unit: &mut U, rounds: usize, four: unsafe fn(&mut U)) {
    // SAFETY: the tiles are configured, all of one shape that fits itself.
    unsafe {
        unit.configure(&TileConfig::new([(16, 64); NUM_TILES]));
        for _ in 0..rounds {
            four(unit);
        }
        unit.release();
    }
}

/// # Safety
/// Tiles are configured; fresh ones are zeros.
unsafe fn four_int8<U: TileUnit>(unit: &mut U) {
    // SAFETY: promised by the caller.
    unsafe {
        unit.dot_i8::<0, 4, 6>();
        unit.dot_i8::<1, 4, 7>();
        unit.dot_i8::<2, 5, 6>();
        unit.dot_i8::<3, 5, 7>();
    }
}

/// # Safety
/// As [`four_int8`].
unsafe fn four_bf16<U: TileUnit>(unit: &mut U) {
    // SAFETY: promised by the caller.
    unsafe {
        unit.dot_bf16::<0, 4, 6>();
        unit.dot_bf16::<1, 4, 7>();
        unit.dot_bf16::<2, 5, 6>();
        unit.dot_bf16::<3, 5, 7>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::emulated_tiles::EmulatedTiles;

    /// The emulation fails where shapes do not fit or nothing is configured.
    #[test]
    fn the_products_are_possible() {
        // SAFETY: the emulation runs anywhere.
        unsafe {
            on_zeros(&mut EmulatedTiles::new(), 2, four_int8);
            on_zeros(&mut EmulatedTiles::new(), 2, four_bf16);
        }
    }
}
