//! What the layer's kernels share: a mirror of `MoeParams` in `hwmodels/cuda/route.cuh`, field by field.

/// Addresses on the device and sizes; see `route.cuh` for what lies behind each.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Params {
    /// `T x H`, BF16.
    pub x: u64,
    /// `T x k`, 16 bits.
    pub experts: u64,
    /// `T x k`, FP32.
    pub weights: u64,
    /// Addresses of every expert's W1.
    pub first: u64,
    /// Addresses of every expert's W2.
    pub second: u64,
    /// Addresses of W1's scales.
    pub first_scales: u64,
    /// Addresses of W2's scales.
    pub second_scales: u64,
    /// Every expert's inner width, 32 bits.
    pub inner: u64,
    /// First row of each expert.
    pub row_start: u64,
    /// First tile of each expert in the first product.
    pub up_start: u64,
    /// The same in the second.
    pub down_start: u64,
    /// Splits of K, two numbers.
    pub splits: u64,
    /// The token of each row.
    pub row_token: u64,
    /// The row of each place.
    pub row_of: u64,
    /// Rows x widest inner width, BF16.
    pub h: u64,
    /// Rows x `H`, BF16.
    pub y: u64,
    /// `T x H`, FP32.
    pub out: u64,
    /// Partial sums of split tiles.
    pub partial: u64,
    /// Parts of split tiles that are done; zeros between calls.
    pub done: u64,
    /// `T`.
    pub tokens: i32,
    /// `k`.
    pub top_k: i32,
    /// `H`.
    pub hidden: i32,
    /// Routed experts.
    pub routed: i32,
    /// Shared experts.
    pub shared: i32,
    /// Widest inner width, the row length of `h`.
    pub widest: i32,
    /// Blocks of the products.
    pub blocks: i32,
    /// Whether weights are FP8.
    pub fp8: i32,
}

// SAFETY: plain numbers, laid out as C does, as the kernels read them.
unsafe impl cudarc::driver::DeviceRepr for Params {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other side asserts the same of `MoeParams` (`emulate.cpp`).
    #[test]
    fn both_sides_have_one_layout() {
        assert_eq!(size_of::<Params>(), 184);
        assert_eq!(std::mem::offset_of!(Params, inner), 56);
        assert_eq!(std::mem::offset_of!(Params, done), 144);
        assert_eq!(std::mem::offset_of!(Params, tokens), 152);
        assert_eq!(std::mem::offset_of!(Params, fp8), 180);
        // The order of the fields is that of the source.
        let source = crate::cuda::source();
        let from = source.find("struct MoeParams {").unwrap();
        let body = &source[from..from + source[from..].find("};").unwrap()];
        let fields: Vec<&str> = body
            .lines()
            .filter_map(|l| l.trim().strip_prefix("address ").or(l.trim().strip_prefix("int ")))
            .map(|l| l.trim_end_matches(';'))
            .collect();
        let text = format!("{:?}", Params::default());
        let own: Vec<&str> =
            text.split_once('{').unwrap().1.split(',').map(|f| f.split(':').next().unwrap().trim()).collect();
        assert_eq!(fields, own);
    }
}
