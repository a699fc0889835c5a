//! Large aligned buffers: weights, caches, scratch. Allocated once, zeroed, huge pages asked for.
//!
//! Page faults and TLB misses dominate on virtual machines, so nothing in a warm step allocates;
//! what a step needs is planned here beforehand.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Transparent huge pages are 2 MiB on x86-64 and most 64-bit ARM systems.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// A cache line, and the width of the widest vector register.
const LINE_BYTES: usize = 64;

/// Why a buffer could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot allocate {bytes} bytes of memory")]
pub struct OutOfMemory {
    /// What was asked for.
    pub bytes: usize,
}

/// An owned, zero-initialised byte buffer, aligned to 64 bytes (2 MiB where it is that large).
pub struct AlignedBytes {
    pointer: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory and has no interior mutability, like a `Vec<u8>`.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// A buffer of `len` zero bytes.
    ///
    /// # Errors
    /// When the memory is not there.
    pub fn zeroed(len: usize) -> Result<AlignedBytes, OutOfMemory> {
        let align = if len >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { LINE_BYTES };
        let error = OutOfMemory { bytes: len };
        let Ok(layout) = Layout::from_size_align(len.max(1), align) else { return Err(error) };
        // SAFETY: the layout has a non-zero size.
        let Some(pointer) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            return Err(error);
        };
        #[cfg(target_os = "linux")]
        if align == HUGE_PAGE_BYTES {
            // SAFETY: the range was just allocated and is page-aligned; the call only advises,
            // so its result does not matter.
            unsafe { libc::madvise(pointer.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        Ok(AlignedBytes { pointer, layout })
    }

    /// The buffer as `f32`s (the tail that does not fill one is left out).
    pub fn as_f32(&self) -> &[f32] {
        bytemuck::cast_slice(&self[..self.len() / 4 * 4])
    }

    /// The buffer as mutable `f32`s (the tail that does not fill one is left out).
    pub fn as_f32_mut(&mut self) -> &mut [f32] {
        let len = self.len() / 4 * 4;
        bytemuck::cast_slice_mut(&mut self[..len])
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the allocation has `layout.size()` initialised bytes and lives as long as self.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout, and freed once.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) };
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBytes").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zeroed_aligned_and_writable() {
        for len in [1, 63, 64, 4096, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 5] {
            let mut bytes = AlignedBytes::zeroed(len).unwrap();
            assert_eq!(bytes.len(), len);
            assert_eq!(bytes.as_ptr() as usize % LINE_BYTES, 0);
            assert!(bytes.iter().all(|&byte| byte == 0));
            bytes[len - 1] = 7;
            assert_eq!(bytes[len - 1], 7);
        }
    }

    #[test]
    fn an_absurd_size_is_an_error() {
        assert!(AlignedBytes::zeroed(usize::MAX).is_err());
        assert!(AlignedBytes::zeroed(isize::MAX as usize - HUGE_PAGE_BYTES).is_err());
    }
}
