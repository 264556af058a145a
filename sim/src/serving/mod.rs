//! Serving: requests in line and running on attention ranks, batches, KV cache.

pub mod balancer;
pub mod batch;
pub mod rank;
pub mod scheduler;

pub use balancer::{LeastLoaded, LoadBalancer, RoundRobin};
pub use batch::{Batch, BatchSize};
pub use rank::{Live, Rank, Step};
pub use scheduler::{ChunkedPrefill, Scheduler};
