//! Loops that the compiler turns into vectors, each for the widest ones that the processor has.

/// Defines a function that runs `$body` under the widest instructions at hand. `$fma` says in it whether these have a
/// fused multiply and add, without which `mul_add` would be a call.
macro_rules! widest {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?, $body:ident) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                let (avx512f, avx2_) = crate::kernel::cpu::simd::has();
                if avx512f {
                    // SAFETY: the processor has these instructions, as was just asked.
                    return unsafe { avx512($($arg),*) };
                }
                if avx2_ {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(super) use widest;

/// Whether the processor has the parts of AVX-512 that are used, and AVX2 with fused multiply and add.
#[cfg(target_arch = "x86_64")]
pub(super) fn has() -> (bool, bool) {
    use std::arch::is_x86_feature_detected as detected;
    let avx2 = detected!("avx2") && detected!("fma");
    let avx512 = detected!("avx512f") && detected!("avx512bw") && detected!("avx512dq") && detected!("avx512vl");
    (avx2 && avx512, avx2)
}

/// `a b + c`, fused where that is one instruction.
#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` to about 1e-7 of itself, without branches: `2^n` times the Taylor series of the rest, which is at most `ln 2 /
/// 2`.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, of which the first times any n is exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const SERIES: [f32; 8] = [1.0, 1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];
    // Added and taken away, it leaves the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let n = fma::<FMA>(x, LOG2_E, ROUND) - ROUND;
    let r = fma::<FMA>(-n, LN2[1], fma::<FMA>(-n, LN2[0], x));
    let mut sum = SERIES[7];
    for c in SERIES[..7].iter().rev() {
        sum = fma::<FMA>(sum, r, *c);
    }
    sum * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

#[inline(always)]
fn activate_<const FMA: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
        *o = g / (1.0 + exp::<FMA>(-g)) * u;
    }
}

widest! {
    /// `silu(gate) up`, element by element.
    pub(super) fn activate(gate: &[f32], up: &[f32], out: &mut [f32]), activate_
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_close() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let wanted = libm::exp(f64::from(x));
            for found in [exp::<false>(x), exp::<true>(x)] {
                assert!((f64::from(found) / wanted - 1.0).abs() < 3e-7, "{x}: {found} {wanted}");
            }
        }
        let mut out = [0.0; 3];
        activate(&[-1e30, 1e30, 0.0], &[2.0; 3], &mut out);
        assert!(out[0].abs() < 1e-6 && out[1..] == [2e30, 0.0], "{out:?}");
    }
}
