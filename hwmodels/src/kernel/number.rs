//! Narrow numbers and f32.

/// BF16 is the upper half of an f32.
pub fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// The nearest BF16, the even one among equals; what is no number stays none.
pub fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    let odd = (bits >> 16) & 1;
    (bits.wrapping_add(0x7fff + odd) >> 16) as u16
}

/// E4M3 as NVIDIA and OCP define it (OCP 8-bit floating point specification 1.0): bias 7, subnormal below 2^-6, no
/// infinities, 0x7f and 0xff are no numbers.
pub fn from_e4m3(x: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(x >> 3 & 15), f32::from(x & 7));
    let magnitude = match (exponent, x & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * power(-6),
        _ => (1.0 + mantissa / 8.0) * power(exponent - 7),
    };
    if x & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The nearest E4M3, the even one among equals; beyond 448 the largest.
pub fn to_e4m3(x: f32) -> u8 {
    if x.is_nan() {
        return 0x7f;
    }
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let magnitude = x.abs();
    // Codes of positive numbers rise with the number.
    let above = (0..=126u8).find(|c| from_e4m3(*c) >= magnitude).unwrap_or(126);
    if above == 0 || from_e4m3(above) <= magnitude {
        return sign | above;
    }
    let below = above - 1;
    let (down, up) = (magnitude - from_e4m3(below), from_e4m3(above) - magnitude);
    sign | if down < up || (down == up && below % 2 == 0) { below } else { above }
}

/// 2 to a power, exactly.
fn power(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_by_hand() {
        for (x, wanted) in
            [(1.0, 0x3f80), (-2.5, 0xc020), (1.0 + 1.0 / 256.0, 0x3f80), (1.0 + 3.0 / 256.0, 0x3f82), (0.0, 0)]
        {
            assert_eq!(to_bf16(x), wanted, "{x}");
        }
        assert!((0..=u16::MAX).all(|x| from_bf16(x).is_nan() || to_bf16(from_bf16(x)) == x));
        assert!(from_bf16(to_bf16(f32::NAN)).is_nan());
    }

    #[test]
    fn e4m3_by_hand() {
        for (code, wanted) in
            [(0x00, 0.0), (0x01, 1.0 / 512.0), (0x08, 1.0 / 64.0), (0x38, 1.0), (0x7e, 448.0), (0xb8, -1.0)]
        {
            assert_eq!(from_e4m3(code), wanted, "{code:#x}");
        }
        assert!(from_e4m3(0x7f).is_nan());
        // The bits of -0 differ from those of 0; every other number comes back.
        assert!((0..=255u8).all(|x| from_e4m3(x).is_nan() || to_e4m3(from_e4m3(x)) == x));
        // 17 lies between 16 and 18, whose code is even; 1000 is beyond the largest.
        assert_eq!((from_e4m3(to_e4m3(17.0)), from_e4m3(to_e4m3(1000.0)), to_e4m3(-1e-9)), (16.0, 448.0, 0x80));
    }
}
