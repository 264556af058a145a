//! Calibration: constants of cost forms from measured times.
//!
//! * [`data`]: measurements by schema, from CSV;
//! * [`solve`]: robust least squares of one form's constants;
//! * [`cross`]: errors on shapes that a fit has not seen, beside a bare roofline and the nearest measured shape;
//! * [`fit`]: groups of measurements as kernels of a profile;
//! * [`profile`]: the fitted constants as a file, with their intervals, data and errors.

pub mod cross;
pub mod data;
pub mod device;
pub mod fit;
pub mod load;
pub mod profile;
pub mod solve;
