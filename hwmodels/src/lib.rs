//! Hardware, and what work costs on it.
//!
//! * [`hardware`]: devices, memories and hosts as data; presets inside the binary; every constant has an origin.
//! * [`topology`]: the directed graph of devices, switches and links of a [`TopologySpec`], with a routing rule per
//!   kind.
//! * [`network`]: the time of transfers on a topology in three fidelities ([`Bottleneck`], [`Flow`], [`Reserve`]), and
//!   of collectives.
//! * [`cost`]: rooflines with a launch term, in plain shapes: GEMM, grouped experts, attention, copies.
//!
//! ```
//! use moesim_hwmodels::{Bottleneck, Hardware, Topology, Transfer, cost};
//! use std::sync::Arc;
//!
//! let hardware = Hardware::load("h100-8")?;
//! let engine = cost::Engine::gpu(&hardware.device);
//! let gemm = cost::gemm(&engine, cost::Gemm { m: 64, n: 4096, k: 7168, weight_bits: 16.0, activation_bits: 16.0 });
//! assert_eq!(gemm.term(), cost::Term::Memory);
//!
//! let topology = Arc::new(Topology::build(&hardware.topology)?);
//! let mut network = Bottleneck::new(topology);
//! let phase = network.phase(&[Transfer { src: 0, dst: 1, bytes: 1 << 20 }], None);
//! assert!(phase.time_s > 0.0);
//! # Ok::<(), moesim_core::Diag>(())
//! ```
//!
//! Nothing here knows of models, traces or time: a cost is asked for in plain shapes and given in f64 seconds, and the
//! caller rounds once, on entry to the clock.

pub mod calibrate;
pub mod cost;
pub mod cuda;
pub mod form;
pub mod hardware;
pub mod kernel;
pub mod measure;
pub mod network;
pub mod topology;

pub use hardware::{Hardware, preset_text, presets};
pub use network::{Bottleneck, Flow, Phase, Reserve, Timed, Transfer, TransferModel};
pub use topology::{Topology, TopologySpec};
