//! The harness: pods as network namespaces, the processes in them, an application to talk to, and what looks at the result.
//!
//! It stands on the outside of Weft: it starts the programs as a pod would, speaks to them over sockets and reads what
//! anybody can read (answers, counters, logs). The demo (`weft-demo`) and the end-to-end tests share it, so what the demo
//! shows is what the tests hold.
//!
//! Invariants: nothing touches the network of the machine itself; everything is named after a [`slot::Slot`], so that what a
//! killed run left behind is found and removed by the next; whatever is started ends with its owner.

pub mod bootstrap;
pub mod facts;
pub mod http1;
pub mod load;
pub mod manifests;
pub mod mesh;
pub mod netns;
pub mod origin;
pub mod peers;
pub mod process;
pub mod prometheus;
pub mod services;
pub mod slot;
pub mod wait;
