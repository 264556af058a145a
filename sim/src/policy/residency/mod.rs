//! What a device keeps of experts that live elsewhere.

pub mod cache_fraction;
pub mod lru;

pub use cache_fraction::CacheFraction;
pub use lru::Lru;
