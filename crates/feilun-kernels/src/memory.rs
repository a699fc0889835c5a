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
/// Large buffers take memory only as they are touched.
pub struct AlignedBytes {
    pointer: NonNull<u8>,
    len: usize,
    origin: Origin,
}

/// Where the memory came from, and so how it goes back.
enum Origin {
    Heap(Layout),
    #[cfg(unix)]
    Map {
        start: *mut libc::c_void,
        len: usize,
    },
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
        #[cfg(unix)]
        if len >= HUGE_PAGE_BYTES {
            return Self::mapped(len);
        }
        let error = OutOfMemory { bytes: len };
        let Ok(layout) = Layout::from_size_align(len.max(1), LINE_BYTES) else {
            return Err(error);
        };
        // SAFETY: the layout has a non-zero size.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(error)?;
        Ok(AlignedBytes { pointer, len, origin: Origin::Heap(layout) })
    }

    #[cfg(unix)]
    fn mapped(len: usize) -> Result<AlignedBytes, OutOfMemory> {
        let error = || OutOfMemory { bytes: len };
        // One huge page more than asked for, so that an aligned start lies inside.
        let map_len = len.checked_add(HUGE_PAGE_BYTES).ok_or_else(error)?;
        // SAFETY: an anonymous private map at an address of the system's choice touches
        // nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(error());
        }
        let skip = start.cast::<u8>().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: `skip` is less than the huge page that was added above.
        let aligned = unsafe { start.cast::<u8>().add(skip) };
        #[cfg(target_os = "linux")]
        // SAFETY: the range lies inside the map made above; the call only advises, so its
        // result does not matter.
        unsafe {
            libc::madvise(aligned.cast(), len, libc::MADV_HUGEPAGE)
        };
        let pointer = NonNull::new(aligned).ok_or_else(error)?;
        Ok(AlignedBytes { pointer, len, origin: Origin::Map { start, len: map_len } })
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
        // SAFETY: the allocation has `len` initialised bytes and lives as long as self.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        match self.origin {
            // SAFETY: allocated in `zeroed` with this layout, and freed once.
            Origin::Heap(layout) => unsafe { dealloc(self.pointer.as_ptr(), layout) },
            #[cfg(unix)]
            // SAFETY: mapped in `mapped` with this length, and unmapped once.
            Origin::Map { start, len } => unsafe {
                libc::munmap(start, len);
            },
        }
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
        assert!(AlignedBytes::zeroed(1 << 60).is_err());
    }
}
