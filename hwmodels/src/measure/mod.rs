//! Measuring kernels on the machine at hand: what [`crate::calibrate`] fits.
//!
//! * [`work`]: one thing to time, and how tokens are dealt over experts;
//! * [`plan`]: which things, in which order;
//! * [`drive`]: which next, where an experiment says what its interval stands on;
//! * [`sample`]: warm-up, repetitions, median with an interval, outliers;
//! * [`table`]: the CSV, a row at a time, so that what was measured is kept whatever happens, and can be gone on with;
//! * [`cpu`], [`cuda`] and [`mock`]: devices behind [`Bench`]; [`host`]: facts of this machine;
//! * [`summary`]: limits and ratios out of the rows, and the hardware file of a machine that no preset describes.

pub mod cpu;
pub mod cuda;
pub mod drive;
pub mod host;
pub mod mock;
pub mod plan;
pub mod sample;
pub mod summary;
pub mod table;
pub mod work;

pub use drive::{Drive, Target};
pub use plan::{Options, Point, plan};
pub use sample::{Sample, sample};
pub use summary::Summary;
pub use table::{Log, MeasuredRow};
pub use work::{MeasuredShape, Precision, Skew, Work};

use moesim_core::Result;

/// What is said of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Its name.
    pub device: String,
    /// The family that its kernels are called in tables.
    pub family: &'static str,
    /// What the kernel's code is: instructions, how it was compiled.
    pub code: String,
    /// Threads that compute, or multiprocessors.
    pub threads: usize,
    /// Bytes of the last cache before memory; 0 if not known.
    pub llc_bytes: u64,
    /// Bytes of its memory in all.
    pub memory_bytes: u64,
    /// Bytes that the weights of all calls are taken from in turn.
    pub rotated_bytes: u64,
    /// The day, as in 2026-11-29.
    pub date: String,
}

/// A device that kernels are timed on.
///
/// * [`Bench::prepare`] makes whatever the calls of one point share, and says why it cannot be done here, if so;
/// * [`Bench::once`] makes one call and gives its seconds; calls take other weights in turn, so that no cache holds
///   them;
/// * an error ends the measuring; rows that were written stay.
pub trait Bench {
    /// What is known of it.
    fn facts(&self) -> &Facts;
    /// Gets ready; `Some` says why not.
    ///
    /// # Errors
    /// The device failed.
    fn prepare(&mut self, point: &Point) -> Result<Option<String>>;
    /// Seconds of one call.
    ///
    /// # Errors
    /// The device failed.
    fn once(&mut self) -> Result<f64>;
    /// Seconds since it was made.
    fn now_s(&self) -> f64;
    /// Seconds of processor time that others than this process took so far, where they would disturb calls; else 0.
    fn others_s(&self) -> f64 {
        0.0
    }
    /// Waits a moment between two batches of short calls, where disturbances last longer than a batch.
    fn pause(&self) {}
    /// Clock now, in MHz, where it is told.
    fn clock_mhz(&self) -> Option<f64>;
}
