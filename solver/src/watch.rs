//! Who looks on while a method searches.

/// Told how a search goes, from any of its threads. What it answers stops searches and changes nothing else.
pub trait Watch: std::fmt::Debug + Send + Sync {
    /// A search of so many steps in all begins from a placement of this value.
    fn begins(&self, value: f64, steps: u64);
    /// So many steps more were tried, and the best objective changed by so much; false: what was found will not be used.
    fn at(&self, steps: u64, change: f64) -> bool;
}
