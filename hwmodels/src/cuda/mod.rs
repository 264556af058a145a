//! The layer's CUDA kernels (`hwmodels/cuda`): their source, their cubins, what they are called with, and a device that
//! runs them.
//!
//! Neither the driver nor the compiler (NVRTC) is linked: both are looked for when a device is asked for. With NVRTC
//! the source is compiled for the device at hand; where it is not found, or makes what an older driver cannot load,
//! cubins that are inside the binary serve, for sm_80, sm_90a and sm_100 and what runs their code.

mod device;
mod params;

pub use device::{DeviceMemory, Gpu, HostBytes};
pub use params::Params;

use flate2::read::GzDecoder;
use moesim_core::{Diag, Result};
use std::io::Read;

/// The source, in one piece; `hwmodels/cuda/moe.cu` is its table of contents.
pub fn source() -> String {
    [
        include_str!("../../cuda/ptx.cuh"),
        include_str!("../../cuda/route.cuh"),
        include_str!("../../cuda/product.cuh"),
        include_str!("../../cuda/stream.cuh"),
    ]
    .concat()
}

/// The cubin that a device of this compute capability runs, with its architecture; `None` if there is none.
///
/// # Errors
/// None that a user could cause.
pub fn cubin(major: i32, minor: i32) -> Result<Option<(&'static str, Vec<u8>)>> {
    // A cubin runs on devices of its major version and the same or a later minor one; those of 90a on 9.0 alone.
    let (name, packed): (_, &[u8]) = match (major, minor) {
        (8, _) => ("sm_80", include_bytes!("../../cuda/cubin/sm_80.gz")),
        (9, 0) => ("sm_90a", include_bytes!("../../cuda/cubin/sm_90a.gz")),
        (10, _) => ("sm_100", include_bytes!("../../cuda/cubin/sm_100.gz")),
        _ => return Ok(None),
    };
    let mut cubin = Vec::new();
    GzDecoder::new(packed)
        .read_to_end(&mut cubin)
        .map_err(|e| Diag::run(format!("the cubin of {name} cannot be unpacked: {e}")))?;
    Ok(Some((name, cubin)))
}
