//! Large aligned buffers: weights, caches, scratch. Allocated once, zeroed, huge pages asked for.
//!
//! Page faults and TLB misses dominate on virtual machines, so nothing in a warm step allocates;
//! what a step needs is planned here beforehand.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

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

/// Hands out parts of large buffers, so that many small things lie in huge pages together.
///
/// The weights of a small model are hundreds of matrices below the size of a huge page each. In
/// ordinary pages every 4 KiB costs a page walk, and decoding reads all of them for each token:
/// measured, 9 GB/s of a thread's 29.
#[derive(Debug, Default)]
pub struct Arena {
    chunk: Option<Arc<AlignedBytes>>,
    used: usize,
}

/// Bytes of a chunk of an [`Arena`]; larger requests get a chunk of their own.
const CHUNK_BYTES: usize = 32 << 20;

impl Arena {
    /// `len` zero bytes, aligned to 64.
    ///
    /// # Errors
    /// When the memory is not there.
    pub fn allocate(&mut self, len: usize) -> Result<ArenaBytes, OutOfMemory> {
        let fits = |chunk: &Arc<AlignedBytes>| {
            self.used.checked_add(len).is_some_and(|end| end <= chunk.len())
        };
        let chunk = match self.chunk.take().filter(fits) {
            Some(chunk) => chunk,
            None => {
                self.used = 0;
                Arc::new(AlignedBytes::zeroed(len.max(CHUNK_BYTES))?)
            }
        };
        let start = self.used;
        self.used = (start + len).next_multiple_of(LINE_BYTES);
        self.chunk = Some(Arc::clone(&chunk));
        Ok(ArenaBytes { chunk, start, len })
    }
}

/// A part of an [`Arena`]'s chunk: nobody else has it, and it keeps the chunk alive.
pub struct ArenaBytes {
    chunk: Arc<AlignedBytes>,
    start: usize,
    len: usize,
}

impl std::fmt::Debug for ArenaBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArenaBytes").field("len", &self.len).finish()
    }
}

impl Deref for ArenaBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the part lies within the chunk, which lives as long as self, and only
        // `deref_mut` of this same value writes to it.
        unsafe { std::slice::from_raw_parts(self.chunk.pointer.as_ptr().add(self.start), self.len) }
    }
}

impl DerefMut for ArenaBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; parts do not overlap, the chunk itself is reached through
        // parts alone, and `&mut self` makes this the only reference to this one.
        unsafe {
            std::slice::from_raw_parts_mut(self.chunk.pointer.as_ptr().add(self.start), self.len)
        }
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

    #[test]
    fn parts_of_an_arena_do_not_overlap() {
        let mut arena = Arena::default();
        let lens = [1, 64, 65, CHUNK_BYTES / 2, CHUNK_BYTES / 2, CHUNK_BYTES + 1, 7];
        let mut parts: Vec<ArenaBytes> =
            lens.iter().map(|&len| arena.allocate(len).unwrap()).collect();
        for (i, part) in parts.iter_mut().enumerate() {
            assert_eq!((part.len(), part.as_ptr() as usize % LINE_BYTES), (lens[i], 0));
            part.fill(i as u8 + 1);
        }
        drop(arena);
        for (i, part) in parts.iter().enumerate() {
            assert!(part.iter().all(|&byte| byte == i as u8 + 1), "part {i}");
        }
    }
}
