//! Configuration at run time: what is published to the workers, and how.

pub mod publish;
pub mod snapshot;
