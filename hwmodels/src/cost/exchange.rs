//! Calibrated kernels of collectives: their time by what the busiest device moves.

use crate::form::{
    CollectiveForm, CollectiveOp, CollectiveRow, CustomAllReduceForm, Form, FusedExchangeForm, FusedExchangeRow,
    LinkPeaks, LowLatencyForm, LowLatencyRow, NormalForm, NormalRow,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a collective moves. Bytes are those of the device with the most, sent or received.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exchanged {
    /// Devices that take part.
    pub devices: f64,
    /// Nodes that they are on.
    pub nodes: f64,
    /// Bytes inside its node.
    pub link_bytes: f64,
    /// Bytes between its node and others.
    pub nic_bytes: f64,
    /// Bytes that its processors copy: all that it sends, forwards and keeps.
    pub copied_bytes: f64,
    /// Bytes of a message.
    pub message_bytes: f64,
    /// Flags that it awaits from other nodes.
    pub flags: f64,
    /// Experts of the layer, over all devices.
    pub experts: f64,
    /// The largest tokens of a device, for what was measured by tokens; bytes of a collective's buffer.
    pub size: f64,
}

/// A form, with what its constants do not say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ExchangeForm {
    /// [`LowLatencyForm`].
    LowLatency,
    /// [`NormalForm`] with this many processors.
    Normal {
        /// Processors that copy.
        units: f64,
    },
    /// [`FusedExchangeForm`].
    Fused,
    /// [`CollectiveForm`].
    Collective(CollectiveOp),
    /// [`CustomAllReduceForm`].
    CustomAllReduce,
}

/// A kernel with fitted constants.
#[derive(Clone, Debug)]
pub struct ExchangeKernel {
    form: ExchangeForm,
    constants: Vec<f64>,
    peaks: LinkPeaks,
    sizes: [f64; 2],
    outside: Arc<AtomicU64>,
    /// Another kernel, which takes the call where it was measured at its size and is faster.
    small: Option<Arc<ExchangeKernel>>,
}

impl ExchangeKernel {
    /// Of fitted constants; `sizes`: the least and the largest that were measured.
    pub fn new(form: ExchangeForm, constants: Vec<f64>, peaks: LinkPeaks, sizes: [f64; 2]) -> Self {
        Self { form, constants, peaks, sizes, outside: Arc::default(), small: None }
    }

    /// With an engine's own kernel for messages up to the largest that it was measured at: of both, the faster at each
    /// size.
    #[must_use]
    pub fn with_small(self, small: Self) -> Self {
        Self { small: Some(Arc::new(small)), ..self }
    }

    /// Calls so far that were smaller or larger than any measurement.
    pub fn outside(&self) -> u64 {
        self.outside.load(Ordering::Relaxed)
    }

    /// Whether it has a time for devices on so many nodes. An all-to-all was measured inside a node, and stands in
    /// between nodes: with its fixed times, and the fractions of the link that it reached as fractions of the network
    /// card.
    pub fn serves(&self, nodes: usize) -> bool {
        nodes == 1 || !self.is_of_a_node() || matches!(self.form, ExchangeForm::Collective(CollectiveOp::AllToAll))
    }

    /// Whether it was measured inside a node.
    pub fn is_of_a_node(&self) -> bool {
        matches!(self.form, ExchangeForm::Collective(_) | ExchangeForm::CustomAllReduce)
    }

    /// Seconds of a call.
    pub fn seconds(&self, x: &Exchanged) -> f64 {
        let (c, peaks) = (&self.constants, self.peaks);
        // What all would send of a buffer of which a device keeps its own part.
        let whole = |sent: f64| if x.devices > 1.0 { sent * x.devices / (x.devices - 1.0) } else { 0.0 };
        // As each was measured: by devices, by bytes of the buffer, or by tokens.
        let size = match self.form {
            ExchangeForm::Fused => x.devices,
            ExchangeForm::Collective(CollectiveOp::AllToAll) if x.nodes > 1.0 => {
                whole(x.link_bytes.max(x.nic_bytes * peaks.link_bytes_per_s / peaks.nic_bytes_per_s))
            }
            ExchangeForm::Collective(CollectiveOp::AllToAll) => whole(x.link_bytes),
            // As a way of dispatch it is asked with what devices send, as a step by itself with its buffer.
            ExchangeForm::Collective(CollectiveOp::AllGather | CollectiveOp::ReduceScatter) if x.link_bytes > 0.0 => {
                whole(x.link_bytes)
            }
            _ => x.size,
        };
        let small = self.small.as_ref().filter(|s| size <= s.sizes[1]);
        if size > self.sizes[1] || size < small.map_or(self.sizes[0], |s| self.sizes[0].min(s.sizes[0])) {
            self.outside.fetch_add(1, Ordering::Relaxed);
        }
        let seconds = match self.form {
            ExchangeForm::LowLatency => {
                let Exchanged { link_bytes, nic_bytes, flags, experts, nodes, .. } = *x;
                LowLatencyForm.seconds(c, &LowLatencyRow { link_bytes, nic_bytes, flags, experts, nodes, peaks })
            }
            ExchangeForm::Normal { units } => {
                let (link_bytes, nic_bytes, copied_bytes) = (x.link_bytes, x.nic_bytes, x.copied_bytes);
                NormalForm.seconds(c, &NormalRow { link_bytes, nic_bytes, copied_bytes, units, nodes: x.nodes, peaks })
            }
            ExchangeForm::Fused => {
                let message_bytes = x.message_bytes.max(1.0);
                let messages = whole(x.link_bytes + x.nic_bytes) / message_bytes;
                FusedExchangeForm.seconds(c, &FusedExchangeRow { devices: x.devices, messages, message_bytes, peaks })
            }
            ExchangeForm::Collective(op) => CollectiveForm
                .seconds(c, &CollectiveRow { op, devices: x.devices, bytes: size, in_switch: true, peaks }),
            ExchangeForm::CustomAllReduce => {
                let op = CollectiveOp::AllReduce;
                CustomAllReduceForm
                    .seconds(c, &CollectiveRow { op, devices: x.devices, bytes: size, in_switch: false, peaks })
            }
        };
        small.map_or(seconds, |s| s.seconds(x).min(seconds))
    }
}

/// The calibrated kernels of a machine's collectives.
#[derive(Clone, Debug, Default)]
pub struct ExchangeKernels {
    /// Tokens to their experts.
    pub dispatch: Option<ExchangeKernel>,
    /// Results back.
    pub combine: Option<ExchangeKernel>,
    /// Every device gets the sum.
    pub all_reduce: Option<ExchangeKernel>,
    /// Every device gets all parts.
    pub all_gather: Option<ExchangeKernel>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::{Exchange, ExchangeOp};

    const H100: LinkPeaks = LinkPeaks { link_bytes_per_s: 450e9, nic_bytes_per_s: 50e9, bytes_per_s: 3.35e12 };

    fn starts<F: Form>(form: &F) -> Vec<f64> {
        form.constants().iter().map(|c| c.start).collect()
    }

    /// What uniform routing moves, given as bytes, takes what the form says of uniform routing.
    #[test]
    fn bytes_of_uniform_routing_take_the_time_of_its_form() {
        let x = Exchange { nodes: 2.0, devices: 8.0, tokens: 128.0, experts: 256, top_k: 8, hidden: 7168.0 };
        let low = LowLatencyRow::uniform(&x, ExchangeOp::Dispatch, 0.0, H100);
        let moved = Exchanged {
            devices: 16.0,
            nodes: 2.0,
            link_bytes: low.link_bytes,
            nic_bytes: low.nic_bytes,
            flags: low.flags,
            experts: low.experts,
            size: 128.0,
            ..Exchanged::default()
        };
        let kernel = |form, c: Vec<f64>| ExchangeKernel::new(form, c, H100, [1.0, 256.0]);
        let c = starts(&LowLatencyForm);
        assert_eq!(kernel(ExchangeForm::LowLatency, c.clone()).seconds(&moved), LowLatencyForm.seconds(&c, &low));
        let normal = NormalRow::uniform(&x, ExchangeOp::Combine, 20.0, H100);
        let moved = Exchanged {
            link_bytes: normal.link_bytes,
            nic_bytes: normal.nic_bytes,
            copied_bytes: normal.copied_bytes,
            ..moved
        };
        let c = starts(&NormalForm);
        let of = kernel(ExchangeForm::Normal { units: 20.0 }, c.clone());
        assert_eq!(of.seconds(&moved), NormalForm.seconds(&c, &normal));
        assert_eq!(of.outside(), 0);
        of.seconds(&Exchanged { size: 512.0, ..moved });
        assert_eq!(of.outside(), 1);
    }

    /// An engine's own kernel takes what it was measured at where it is faster, and nothing beyond.
    #[test]
    fn the_faster_of_two_kernels_takes_a_message() {
        let nccl = ExchangeKernel::new(
            ExchangeForm::Collective(CollectiveOp::AllReduce),
            starts(&CollectiveForm),
            H100,
            [256.0, 1e9],
        );
        let own = ExchangeKernel::new(ExchangeForm::CustomAllReduce, starts(&CustomAllReduceForm), H100, [64.0, 1e6]);
        let both = nccl.clone().with_small(own.clone());
        let at = |size: f64| Exchanged { devices: 8.0, nodes: 1.0, size, ..Exchanged::default() };
        for size in [64.0, 1e4, 1e6] {
            let wanted = nccl.seconds(&at(size)).min(own.seconds(&at(size)));
            assert_eq!(both.seconds(&at(size)), wanted, "{size}");
        }
        assert!(both.seconds(&at(1e4)) < nccl.seconds(&at(1e4)));
        assert_eq!(both.seconds(&at(1.1e6)), nccl.seconds(&at(1.1e6)));
        let before = both.outside();
        both.seconds(&at(32.0));
        assert_eq!(both.outside(), before + 1);
    }

    /// A device of 16 that sends 15 of 16 messages over the link.
    #[test]
    fn fused_kernels_and_collectives_take_the_bytes_that_leave() {
        let row = FusedExchangeRow { devices: 16.0, messages: 1024.0, message_bytes: 7680.0, peaks: H100 };
        let moved = Exchanged {
            devices: 16.0,
            nodes: 1.0,
            link_bytes: 1024.0 * 7680.0 * 15.0 / 16.0,
            message_bytes: 7680.0,
            size: 1e6,
            ..Exchanged::default()
        };
        let c = starts(&FusedExchangeForm);
        let of = ExchangeKernel::new(ExchangeForm::Fused, c.clone(), H100, [0.0, 1e12]);
        assert!((of.seconds(&moved) / FusedExchangeForm.seconds(&c, &row) - 1.0).abs() < 1e-12);
        let c = starts(&CollectiveForm);
        for (op, bytes) in [(CollectiveOp::AllToAll, 1024.0 * 7680.0), (CollectiveOp::AllReduce, 1e6)] {
            let row = CollectiveRow { op, devices: 16.0, bytes, in_switch: true, peaks: H100 };
            let of = ExchangeKernel::new(ExchangeForm::Collective(op), c.clone(), H100, [0.0, 1e12]);
            assert!((of.seconds(&moved) / CollectiveForm.seconds(&c, &row) - 1.0).abs() < 1e-12);
            assert!(of.serves(1) && of.serves(2) == matches!(op, CollectiveOp::AllToAll) && of.outside() == 0);
            // Measured from a gigabyte on.
            let far = ExchangeKernel::new(ExchangeForm::Collective(op), c.clone(), H100, [1e9, 1e12]);
            far.seconds(&moved);
            assert_eq!(far.outside(), 1);
        }
    }

    /// Between nodes an all-to-all takes what it takes inside one for as long a time on the link as on the network
    /// card.
    #[test]
    fn an_all_to_all_of_a_node_stands_in_between_nodes() {
        let constants = vec![6e-6, 2e-7, 0.3, 2e-5, 1e-7, 0.8, 0.3];
        let form = ExchangeForm::Collective(CollectiveOp::AllToAll);
        let kernel = ExchangeKernel::new(form, constants.clone(), H100, [1.0, 1e9]);
        assert!(kernel.serves(2) && kernel.is_of_a_node());
        let gather = ExchangeForm::Collective(CollectiveOp::AllGather);
        assert!(!ExchangeKernel::new(gather, constants, H100, [1.0, 1e9]).serves(2));
        let of = |nodes, link_bytes, nic_bytes| {
            kernel.seconds(&Exchanged { devices: 16.0, nodes, link_bytes, nic_bytes, ..Exchanged::default() })
        };
        assert_eq!(of(2.0, 1e6, 1e6), of(1.0, 9e6, 0.0));
        assert_eq!(of(2.0, 9e7, 1e6), of(1.0, 9e7, 0.0));
    }
}
