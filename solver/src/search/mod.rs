//! What the methods that search have in common.

mod layer;
pub(crate) mod moved;
mod replicas;

pub(crate) use layer::{Layer, Step};
pub(crate) use replicas::{most_loaded_first, node_of_groups};
