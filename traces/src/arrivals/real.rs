//! Numbers for rand_distr whose functions are libm's, so that a draw is the same bits on every platform.
//!
//! rand_distr is generic over `num_traits::Float`. Of `f64` that is libm only if no crate of the build asks num-traits for
//! `std`, and others here do (nalgebra, chrono); it would then be the platform's, whose last bits differ. The same holds of
//! rand_distr's own exponential and normal draws of `f64`, so [`Real`] has draws of its own.

use num_traits::{Float, Num, NumCast, One, ToPrimitive, Zero};
use rand::{Rng, distr::Distribution};
use rand_distr::{Exp1, Open01, OpenClosed01, StandardNormal, StandardUniform};
use std::num::FpCategory;
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

/// An `f64` with libm's functions.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Real(pub(super) f64);

macro_rules! operators {
    ($($operator:ident $method:ident),*) => {$(
        impl $operator for Real {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                Self(self.0.$method(other.0))
            }
        }
    )*};
}
operators!(Add add, Sub sub, Mul mul, Div div, Rem rem);

impl Neg for Real {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl Zero for Real {
    fn zero() -> Self {
        Self(0.0)
    }
    fn is_zero(&self) -> bool {
        self.0 == 0.0
    }
}

impl One for Real {
    fn one() -> Self {
        Self(1.0)
    }
}

impl Num for Real {
    type FromStrRadixErr = <f64 as Num>::FromStrRadixErr;
    fn from_str_radix(text: &str, radix: u32) -> Result<Self, Self::FromStrRadixErr> {
        f64::from_str_radix(text, radix).map(Self)
    }
}

impl ToPrimitive for Real {
    fn to_i64(&self) -> Option<i64> {
        self.0.to_i64()
    }
    fn to_u64(&self) -> Option<u64> {
        self.0.to_u64()
    }
    fn to_f64(&self) -> Option<f64> {
        Some(self.0)
    }
}

impl NumCast for Real {
    fn from<T: ToPrimitive>(n: T) -> Option<Self> {
        n.to_f64().map(Self)
    }
}

macro_rules! float {
    (
        constants: $($constant:ident = $value:expr),*;
        questions: $($question:ident),*;
        exact: $($exact:ident),*;
        libm: $($unary:ident = $of:ident),*;
        libm of two: $($binary:ident = $of_two:ident),*;
    ) => {
        impl Float for Real {
            $(fn $constant() -> Self { Self($value) })*
            $(fn $question(self) -> bool { self.0.$question() })*
            $(fn $exact(self) -> Self { Self(self.0.$exact()) })*
            $(fn $unary(self) -> Self { Self(libm::$of(self.0)) })*
            $(fn $binary(self, other: Self) -> Self { Self(libm::$of_two(self.0, other.0)) })*
            fn classify(self) -> FpCategory {
                self.0.classify()
            }
            fn mul_add(self, a: Self, b: Self) -> Self {
                Self(libm::fma(self.0, a.0, b.0))
            }
            fn powi(self, n: i32) -> Self {
                Self(libm::pow(self.0, n.into()))
            }
            fn log(self, base: Self) -> Self {
                self.ln() / base.ln()
            }
            fn sin_cos(self) -> (Self, Self) {
                (self.sin(), self.cos())
            }
            fn integer_decode(self) -> (u64, i16, i8) {
                self.0.integer_decode()
            }
        }
    };
}
float! {
    constants: nan = f64::NAN, infinity = f64::INFINITY, neg_infinity = f64::NEG_INFINITY, neg_zero = -0.0,
        min_value = f64::MIN, min_positive_value = f64::MIN_POSITIVE, max_value = f64::MAX, epsilon = f64::EPSILON;
    questions: is_nan, is_infinite, is_finite, is_normal, is_sign_positive, is_sign_negative;
    exact: fract, signum, recip;
    libm: floor = floor, ceil = ceil, round = round, trunc = trunc, abs = fabs, sqrt = sqrt, exp = exp, exp2 = exp2, ln = log,
        log2 = log2, log10 = log10, cbrt = cbrt, sin = sin, cos = cos, tan = tan, asin = asin, acos = acos, atan = atan,
        exp_m1 = expm1, ln_1p = log1p, sinh = sinh, cosh = cosh, tanh = tanh, asinh = asinh, acosh = acosh, atanh = atanh;
    libm of two: powf = pow, max = fmax, min = fmin, abs_sub = fdim, hypot = hypot, atan2 = atan2;
}

/// Uniform draws as rand has them, which are exact.
macro_rules! uniform {
    ($($kind:ident),*) => {$(
        impl Distribution<Real> for $kind {
            fn sample<R: Rng + ?Sized>(&self, r: &mut R) -> Real {
                Real(Distribution::<f64>::sample(self, r))
            }
        }
    )*};
}
uniform!(StandardUniform, Open01, OpenClosed01);

/// The negative logarithm of a uniform is exponential.
impl Distribution<Real> for Exp1 {
    fn sample<R: Rng + ?Sized>(&self, r: &mut R) -> Real {
        let u: Real = OpenClosed01.sample(r);
        // Not -0, where the uniform is 1.
        Real(0.0) - u.ln()
    }
}

/// By the polar method (Marsaglia and Bray 1964); the second of the pair is thrown away.
impl Distribution<Real> for StandardNormal {
    fn sample<R: Rng + ?Sized>(&self, r: &mut R) -> Real {
        loop {
            let mut side = || 2.0 * Distribution::<f64>::sample(&StandardUniform, r) - 1.0;
            let (x, y) = (side(), side());
            let s = x * x + y * y;
            if s > 0.0 && s < 1.0 {
                return Real(x * (-2.0 * libm::log(s) / s).sqrt());
            }
        }
    }
}
