//! Turns the descriptor set of the envoy-types package into compact tables that the library embeds.
//!
//! A descriptor pool of Envoy's API costs tens of megabytes and tens of milliseconds at run time, which a sidecar cannot
//! afford. So reflection happens here only: names, field numbers, types and validation rules become a few byte sections
//! (`src/tables/layout.rs` has their form) that need no start-up work, no relocation and no heap.
//!
//! A validation rule that the library could not check fails the build, so that none is dropped silently.

#[path = "build/descriptors.rs"]
mod descriptors;
#[path = "src/tables/layout.rs"]
#[expect(dead_code, reason = "the library reads what is only written here")]
mod layout;
#[path = "build/rules.rs"]
mod rules;
#[path = "build/sections.rs"]
mod sections;

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    for input in ["build.rs", "build", "src/tables/layout.rs"] {
        println!("cargo:rerun-if-changed={input}");
    }
    let pool = descriptors::load()?;
    let sections = sections::Sections::of(&pool)?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run by cargo only")?);
    sections.write(&out)?;
    Ok(())
}
