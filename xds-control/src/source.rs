//! Where the mesh comes from. A source watches something outside, turns it into objects of the model and publishes a
//! new mesh whenever they changed; everything behind it sees meshes only.

pub mod debounce;
pub mod kubernetes;
pub mod manifests;
