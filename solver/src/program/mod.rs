//! Methods that solve integer programs.
//!
//! * [`exact`]: the whole problem, for small ones.
//! * [`stages`]: two stages, as MoETuner has them.
//! * [`window`]: a few layers at a time, in the strong formulation, the others as they are.
//! * [`Ilp`]: what pays off for a problem of its size.

pub mod exact;
mod ilp;
pub mod stages;
pub mod window;

pub use ilp::Ilp;
pub use window::Windows;

#[cfg(test)]
mod tests;
