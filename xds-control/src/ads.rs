//! The xDS server: who is connected, what each asked for, what it is sent.
//!
//! `session` and what it is made of (`subscription`, `interest`) are pure: requests and snapshots in, responses out, the
//! clock passed in. `stream` feeds one session from one gRPC stream, `server` accepts streams of every variant, `message`
//! turns responses into bytes, `node` says who is at the other end, `registry` who is connected right now,
//! `client_status` tells it over gRPC.

mod client_status;
pub mod interest;
pub mod message;
pub mod node;
pub mod registry;
pub mod server;
pub mod session;
pub mod stream;
pub mod subscription;
pub mod wire;
