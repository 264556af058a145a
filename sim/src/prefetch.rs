//! Hints to the memory system.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for the first lines of `data` to be brought into the cache, 16 at most; beyond, the hardware has seen the pattern.
/// Where there is no such instruction it does nothing.
#[inline]
pub(crate) fn prefetch<T>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in data.chunks((LINE / size_of::<T>()).max(1)).take(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint about an address; it neither reads nor writes what the program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}
