//! Resources and their three disciplines: exclusive lanes, shared channels, capacity pools.

/// An exclusive resource: `units` of it, held by operations, granted by priority, then first come, first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u32);

/// A shared resource: operations draw on it together, at max-min rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharedId(pub u32);

/// A lane as declared.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Path name, as in `gpu3.compute`.
    pub name: String,
    /// How many units there are; an operation holds k of them.
    pub units: u32,
}

/// A shared channel as declared.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Path name, as in `gpu3.hbm`.
    pub name: String,
    /// Capacity in units of amount (bytes) per second.
    pub per_second: f64,
}

/// Every resource of a machine that operations hold or draw on.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Exclusive resources by [`LaneId`].
    pub lanes: Vec<Lane>,
    /// Shared resources by [`SharedId`].
    pub channels: Vec<Channel>,
}

impl Resources {
    /// Adds an exclusive resource of `units` units.
    pub fn lane(&mut self, name: impl Into<String>, units: u32) -> LaneId {
        self.lanes.push(Lane { name: name.into(), units });
        LaneId(self.lanes.len() as u32 - 1)
    }
    /// Adds a shared resource of `per_second` capacity, which is above zero: hardware files with no bandwidth are refused.
    pub fn channel(&mut self, name: impl Into<String>, per_second: f64) -> SharedId {
        debug_assert!(per_second > 0.0, "a channel without capacity would never be done");
        // One a second instead: what draws on it ends with the clock at the latest.
        let per_second = if per_second > 0.0 { per_second } else { 1.0 };
        self.channels.push(Channel { name: name.into(), per_second });
        SharedId(self.channels.len() as u32 - 1)
    }
}

/// The capacity discipline: bytes held and released, never above capacity.
#[derive(Clone, Debug)]
pub struct Pool {
    capacity: u64,
    used: u64,
    peak: u64,
}

impl Pool {
    /// An empty pool of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, used: 0, peak: 0 }
    }
    /// Takes `bytes` if they are free.
    #[must_use]
    pub fn try_take(&mut self, bytes: u64) -> bool {
        if bytes > self.capacity - self.used {
            return false;
        }
        self.used += bytes;
        self.peak = self.peak.max(self.used);
        true
    }
    /// Gives `bytes` back.
    ///
    /// # Panics
    /// If more is given back than was taken: an error of the caller.
    pub fn give(&mut self, bytes: u64) {
        assert!(bytes <= self.used, "a pool is given back more than was taken from it");
        self.used -= bytes;
    }
    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used
    }
    /// Bytes free.
    pub fn free(&self) -> u64 {
        self.capacity - self.used
    }
    /// All bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }
    /// The most bytes that were ever in use.
    pub fn peak(&self) -> u64 {
        self.peak
    }
}
