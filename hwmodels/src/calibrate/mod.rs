//! Calibration: constants of cost forms from measured times.
//!
//! * [`data`]: measurements by schema, from CSV;
//! * [`solve`]: robust least squares of one form's constants;
//! * [`cross`]: errors on shapes that a fit has not seen, beside a bare roofline and the nearest measured shape;
//! * [`schema`]: which columns mean what, and [`measured`]: rows of one kernel, fitted or compared;
//! * [`profile`]: the fitted constants as a file, with their intervals, data and errors.

pub mod cross;
pub mod data;
pub mod device;
pub mod load;
pub mod measured;
pub mod profile;
pub mod schema;
pub mod solve;
