//! What no machine has: zeros, fractions above one, origins left empty.

use super::{Hardware, HostLink, Memory};
use crate::topology::{LinkSpec, TopologySpec};
use moesim_core::{Bandwidth, Bytes, Diag, FlopRate, Picos, Result, Sourced};

/// Below any rate of one device or link that a person can mean (1 MB/s, 1 MFLOP/s): slower, and a single kernel could
/// outlast the clock.
const MIN_RATE: f64 = 1e6;
/// Above any rate of one device or link that a person can mean (1 EB/s, 1 EFLOP/s).
const MAX_RATE: f64 = 1e18;
/// Above any memory of one device or node (1 PB).
const MAX_CAPACITY: u64 = 1_000_000_000_000_000;
/// Above any latency or launch (1 s).
const MAX_DELAY: Picos = Picos(1_000_000_000_000);

impl Hardware {
    /// Checks every value, then builds the topology once, so that whatever it refuses is refused here.
    pub(super) fn check(&self) -> Result<()> {
        for (place, text) in [("name", &self.name), ("device.name", &self.device.name)] {
            if text.trim().is_empty() {
                return Err(Diag::input("is empty").place(place).cure("write a name, as in \"h100-8\""));
            }
        }
        if let Some(price) = &self.price_per_device_hour {
            origin("price_per_device_hour", price)?;
            if !(price.value.is_finite() && price.value >= 0.0) {
                let problem = format!("{} is not a price", price.value);
                return Err(Diag::input(problem).place("price_per_device_hour").cure("write US dollars, as in 2.5"));
            }
        }
        self.check_device()?;
        delay("host.iteration_overhead", &self.host.iteration_overhead)?;
        if let Some(m) = &self.host.memory {
            memory("host.memory", m)?;
        }
        if let Some(HostLink { bandwidth, latency, achievable }) = &self.host.link {
            rate("host.link.bandwidth", bandwidth, Bandwidth::per_second)?;
            delay("host.link.latency", latency)?;
            fraction("host.link.achievable", achievable)?;
        }
        self.topology.link_specs().into_iter().try_for_each(|(place, l)| link(&place, l))?;
        let uplink = match &self.topology {
            TopologySpec::Pcie { uplink, .. } => Some(uplink),
            TopologySpec::Planes { uplink, .. } => uplink.as_ref(),
            _ => None,
        };
        if uplink.is_some_and(|l| l.per_message.is_some()) {
            return Err(Diag::input("no message enters over an uplink, so that it has no cost a message")
                .place("topology.uplink.per_message")
                .cure("give it to topology.link, over which messages enter"));
        }
        self.build_topology().map(drop)
    }

    fn check_device(&self) -> Result<()> {
        let d = &self.device;
        memory("device.memory", &d.memory)?;
        rate("device.peak.bf16", &d.peak.bf16, FlopRate::per_second)?;
        for (place, peak) in [
            ("device.peak.fp32", &d.peak.fp32),
            ("device.peak.fp8", &d.peak.fp8),
            ("device.peak.int8", &d.peak.int8),
            ("device.peak.fp4", &d.peak.fp4),
        ] {
            peak.iter().try_for_each(|p| rate(place, p, FlopRate::per_second))?;
        }
        if let Some(units) = &d.units {
            origin("device.units", units)?;
            if !(1..=1_000_000).contains(&units.value) {
                let problem = format!("{} is not a number of processors", units.value);
                return Err(Diag::input(problem).place("device.units").cure("write a whole number, as in 132"));
            }
        }
        d.llc.iter().try_for_each(|c| capacity("device.llc", c))?;
        delay("device.launch", &d.launch)?;
        fraction("device.achievable.compute", &d.achievable.compute)?;
        fraction("device.achievable.grouped", &d.achievable.grouped)?;
        fraction("device.achievable.attention", &d.achievable.attention)?;
        fraction("device.achievable.memory", &d.achievable.memory)?;
        origin("device.reserve", &d.reserve)?;
        if !(0.0..1.0).contains(&d.reserve.value) {
            let problem = format!("{} is not a fraction that leaves memory", d.reserve.value);
            return Err(Diag::input(problem)
                .place("device.reserve")
                .cure("write a number from 0 to below 1, as in 0.1"));
        }
        if let Some(pim) = &d.pim {
            rate("device.pim.peak", &pim.peak, FlopRate::per_second)?;
            rate("device.pim.bandwidth", &pim.bandwidth, Bandwidth::per_second)?;
            delay("device.pim.launch", &pim.launch)?;
            fraction("device.pim.achievable_compute", &pim.achievable_compute)?;
            fraction("device.pim.achievable_memory", &pim.achievable_memory)?;
        }
        Ok(())
    }
}

fn memory(place: &str, m: &Memory) -> Result<()> {
    capacity(&format!("{place}.capacity"), &m.capacity)?;
    rate(&format!("{place}.bandwidth"), &m.bandwidth, Bandwidth::per_second)
}

fn link(place: &str, l: &LinkSpec) -> Result<()> {
    rate(&format!("{place}.bandwidth"), &l.bandwidth, Bandwidth::per_second)?;
    delay(&format!("{place}.latency"), &l.latency)?;
    l.per_message.iter().try_for_each(|p| delay(&format!("{place}.per_message"), p))?;
    fraction(&format!("{place}.achievable"), &l.achievable)
}

fn origin<T>(place: &str, s: &Sourced<T>) -> Result<()> {
    if s.origin.trim().is_empty() {
        let cure = "name a data sheet or a paper's table, or write \"assumed: why\"";
        return Err(Diag::input("has an empty origin").place(place).cure(cure));
    }
    Ok(())
}

fn rate<T: Copy + std::fmt::Display>(place: &str, s: &Sourced<T>, per_second: impl Fn(T) -> f64) -> Result<()> {
    origin(place, s)?;
    if !(MIN_RATE..=MAX_RATE).contains(&per_second(s.value)) {
        let cure = "write a rate above zero, from 1e6 to 1e18 a second, as in \"3.35 TB/s\" or \"989.4 TFLOP/s\"";
        return Err(Diag::input(format!("{} is not a rate that hardware has", s.value)).place(place).cure(cure));
    }
    Ok(())
}

fn capacity(place: &str, s: &Sourced<Bytes>) -> Result<()> {
    origin(place, s)?;
    if !(1..=MAX_CAPACITY).contains(&s.value.get()) {
        let problem = format!("{} is not a size that a memory has", s.value);
        return Err(Diag::input(problem).place(place).cure("write a size above zero and up to 1 PB, as in \"80 GB\""));
    }
    Ok(())
}

fn delay(place: &str, s: &Sourced<Picos>) -> Result<()> {
    origin(place, s)?;
    if s.value > MAX_DELAY {
        let problem = format!("{} is longer than one second", s.value);
        return Err(Diag::input(problem).place(place).cure("write a delay as in \"200 ns\" or \"2 us\""));
    }
    Ok(())
}

fn fraction(place: &str, s: &Sourced<f64>) -> Result<()> {
    origin(place, s)?;
    // Nothing real runs at a thousandth of its peak; far below, a single kernel could outlast the clock.
    if !(1e-3..=1.0).contains(&s.value) {
        let problem = format!("{} is not a fraction of peak", s.value);
        return Err(Diag::input(problem)
            .place(place)
            .cure("write a number above 0, at least 0.001, and up to 1, as in 0.9"));
    }
    Ok(())
}
