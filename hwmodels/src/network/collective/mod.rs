//! Collectives as steps of transfers, over any fidelity.
//!
//! A step starts when the one before has ended everywhere. Bytes that do not divide are rounded up, piece by piece.

mod all_to_all;
mod reduce;

pub use all_to_all::Relay;

use super::{Phase, Transfer, TransferModel};

/// What a collective sends, in steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collective {
    /// Transfers of all steps, one after the other.
    transfers: Vec<Transfer>,
    steps: Vec<Step>,
}

/// Transfers that start together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    /// Where its transfers end in [`Collective::transfers`].
    end: usize,
    /// How often it is done, one after the other.
    times: u32,
}

/// What a step costs beside its bytes on links.
#[derive(Clone, Copy)]
pub struct Effort<'a> {
    /// Seconds before each step: a launch, a flag that is waited for.
    pub step_s: f64,
    /// From the bytes of a message to the fraction of a link's bandwidth that it reaches, above 0 and up to 1: what a
    /// transfer takes is its bytes over this fraction.
    pub reached: &'a dyn Fn(u64) -> f64,
}

impl Effort<'_> {
    /// No time beside the transfers, and links reached whole.
    pub const NONE: Effort<'static> = Effort { step_s: 0.0, reached: &|_| 1.0 };
}

impl Collective {
    /// One message.
    pub fn point_to_point(src: u32, dst: u32, bytes: u64) -> Self {
        Self::default().then(1, [Transfer { src, dst, bytes }])
    }

    /// With one more step, done `times` times; left out if nothing is sent.
    fn then(mut self, times: u32, transfers: impl IntoIterator<Item = Transfer>) -> Self {
        let before = self.transfers.len();
        self.transfers.extend(transfers.into_iter().filter(super::real));
        if self.transfers.len() > before && times > 0 {
            self.steps.push(Step { end: self.transfers.len(), times });
        } else {
            self.transfers.truncate(before);
        }
        self
    }

    /// The transfers of each step, and how often it is done.
    pub fn steps(&self) -> impl Iterator<Item = (&[Transfer], u32)> {
        let starts = std::iter::once(0).chain(self.steps.iter().map(|s| s.end));
        self.steps.iter().zip(starts).map(|(s, start)| (&self.transfers[start..s.end], s.times))
    }

    /// Bytes that devices send, over all steps.
    pub fn bytes(&self) -> u64 {
        self.steps().map(|(t, times)| u64::from(times) * t.iter().map(|t| t.bytes).sum::<u64>()).sum()
    }

    /// The time of all steps on `network`, and the link that binds in the longest; `link_bytes`, one entry a link, has
    /// the bytes of all steps added.
    pub fn time(&self, network: &mut dyn TransferModel, effort: Effort, mut link_bytes: Option<&mut [u64]>) -> Phase {
        let (mut whole, mut longest, mut slowed) = (Phase::default(), 0.0, Vec::new());
        for (transfers, times) in self.steps() {
            slowed.clear();
            slowed.extend(
                transfers.iter().map(|t| Transfer { bytes: stretched(t.bytes, (effort.reached)(t.bytes)), ..*t }),
            );
            let phase = network.phase(&slowed, None);
            let all_s = f64::from(times) * (phase.time_s + effort.step_s);
            whole.time_s += all_s;
            if all_s > longest {
                (longest, whole.link) = (all_s, phase.link);
            }
            if let Some(total) = link_bytes.as_deref_mut() {
                for t in transfers {
                    let path = network.topology().path(t.src as usize, t.dst as usize);
                    path.iter().for_each(|&l| total[l as usize] += u64::from(times) * t.bytes);
                }
            }
        }
        whole
    }
}

/// As many bytes at the full rate take as long.
fn stretched(bytes: u64, reached: f64) -> u64 {
    if reached >= 1.0 { bytes } else { (bytes as f64 / reached.max(1e-6)).ceil() as u64 }
}

#[cfg(test)]
mod tests;
