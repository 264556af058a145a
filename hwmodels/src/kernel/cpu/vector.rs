//! Vectors of f32: what the streaming products need of AVX-512, of AVX2, and of no vectors at all.

use crate::kernel::number;

/// As many f32 as the instructions take at once.
///
/// # Safety
/// Every method is called only where the processor has the instructions, and pointers have [`Vector::LANES`] elements
/// behind them; they need no alignment.
pub(super) trait Vector: Copy {
    /// How many.
    const LANES: usize;
    /// Zeros.
    unsafe fn zero() -> Self;
    /// Reads f32.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads BF16.
    unsafe fn load_bf16(from: *const u16) -> Self;
    /// Reads 8-bit integers.
    unsafe fn load_i8(from: *const i8) -> Self;
    /// `self b + c`.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    /// The sum.
    unsafe fn sum(self) -> f32;
}

/// One f32: any processor.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; 4]);

impl Vector for Plain {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[u16; 4]>().read_unaligned() }.map(number::from_bf16))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[i8; 4]>().read_unaligned() }.map(f32::from))
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        (a + c) + (b + d)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    //! AVX-512 and AVX2.

    use super::Vector;
    use std::arch::x86_64::*;

    /// Sixteen f32 (AVX-512F).
    #[derive(Clone, Copy)]
    pub(in super::super) struct Wide(__m512);

    impl Vector for Wide {
        const LANES: usize = 16;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller's promise, here and below.
            Self(unsafe { _mm512_setzero_ps() })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self {
            unsafe {
                let narrow = _mm256_loadu_si256(from.cast());
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(narrow))))
            }
        }
        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))) }
        }
        #[inline(always)]
        unsafe fn fma(self, b: Self, c: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe { _mm512_reduce_add_ps(self.0) }
        }
    }

    /// Eight f32 (AVX2 and FMA).
    #[derive(Clone, Copy)]
    pub(in super::super) struct Half(__m256);

    impl Vector for Half {
        const LANES: usize = 8;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller's promise, here and below.
            Self(unsafe { _mm256_setzero_ps() })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm256_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self {
            unsafe {
                let narrow = _mm_loadu_si128(from.cast());
                Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(narrow))))
            }
        }
        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            unsafe { Self(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())))) }
        }
        #[inline(always)]
        unsafe fn fma(self, b: Self, c: Self) -> Self {
            Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            let mut part = [0.0f32; 8];
            unsafe { _mm256_storeu_ps(part.as_mut_ptr(), self.0) };
            let [a, b, c, d, e, f, g, h] = part;
            ((a + e) + (c + g)) + ((b + f) + (d + h))
        }
    }
}
