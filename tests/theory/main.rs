//! Does the event engine queue as queueing theory says?
//!
//! Customers go through the real engine ([`Des`], [`Graph`], [`Resources`]): arrivals are a chain of operations that hold
//! nothing, services are operations that hold one of c units of a lane. What comes out is compared with closed forms.
//!
//! * `queues`: mean waits of M/M/1, M/D/1 and M/M/4, and that a service time 3 % off is noticed.
//! * `law`: Little's law, with the number in the system counted along the events.
//! * `loss`: the capacity discipline never overfills, and refuses as often as Erlang's loss formula says.
//!
//! Run with `--nocapture` to see the tables. Every stream is seeded: the outcome is the same on every machine.
//!
//! [`Des`]: moesim::engine::des::Des
//! [`Graph`]: moesim::engine::Graph
//! [`Resources`]: moesim::engine::Resources

mod common;
mod law;
mod loss;
mod queues;
