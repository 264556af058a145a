//! How a layer's experts are executed: one file a policy.

pub mod expert_parallel;
pub mod on_demand;
pub mod on_demand_belady;
pub mod pim_split;

pub use expert_parallel::ExpertParallel;
pub use on_demand::OnDemand;
pub use on_demand_belady::OnDemandBelady;
pub use pim_split::PimSplit;

#[cfg(test)]
mod tests;
