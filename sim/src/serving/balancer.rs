//! Which attention rank a request goes to.

/// Chooses a rank for each arriving request.
pub trait LoadBalancer: Send {
    /// `load[r]`: requests in line or running on rank r; the chosen r.
    fn choose(&mut self, load: &[u32]) -> usize;
}

/// The rank with the fewest requests, the first among equals.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastLoaded;

impl LoadBalancer for LeastLoaded {
    fn choose(&mut self, load: &[u32]) -> usize {
        (0..load.len()).min_by_key(|&r| load[r]).unwrap_or(0)
    }
}

/// One rank after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin {
    next: usize,
}

impl LoadBalancer for RoundRobin {
    fn choose(&mut self, load: &[u32]) -> usize {
        let chosen = self.next % load.len().max(1);
        self.next = chosen + 1;
        chosen
    }
}
