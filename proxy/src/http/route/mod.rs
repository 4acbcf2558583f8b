//! Finding the route of a request: pure, compiled from a route configuration.

pub mod matcher;
pub mod path_index;
pub mod resolved;
pub mod table;
