//! Where drawn routing is kept, as `--no-cache` and the environment say.

use crate::routing::Cache;
use moesim_core::Result;
use std::sync::atomic::{AtomicBool, Ordering};

static NO_CACHE: AtomicBool = AtomicBool::new(false);

/// Whether routing is drawn anew and not kept, in all of this process.
pub(super) fn without(yes: bool) {
    NO_CACHE.store(yes, Ordering::Relaxed);
}

/// Where drawn routing is kept.
///
/// # Errors
/// A size in the environment that is none.
pub(super) fn routing_cache() -> Result<Cache> {
    if NO_CACHE.load(Ordering::Relaxed) { Ok(Cache::none()) } else { Cache::of_user() }
}
