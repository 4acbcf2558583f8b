//! Finds the descriptor set that the envoy-types package was generated from.
//!
//! The package ships it beside its generated code, so the tables describe exactly the messages that the typed API has.
//! `cargo metadata` tells where the package is: the registry cache, a vendored folder or a local path.

use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The types of Envoy, xDS and what they depend on.
pub(crate) fn load() -> Result<DescriptorPool, Box<dyn Error>> {
    let manifest = envoy_types_manifest()?;
    let file = manifest.parent().ok_or("the manifest of envoy-types has no folder")?.join("src/generated/types.bin");
    println!("cargo:rerun-if-changed={}", file.display());
    let set = std::fs::read(&file).map_err(|error| {
        format!("{}: {error} (does this version of envoy-types ship its descriptor set?)", file.display())
    })?;
    let mut pool = DescriptorPool::decode(set.as_slice())?;
    pool.add_file_descriptor_protos(beyond_the_package(&pool))?;
    Ok(pool)
}

/// What no message of Envoy's refers to by its type, so that the package lacks it, and configurations still hold: protobuf's
/// FieldMask, and the two TypedStructs (`string type_url = 1; google.protobuf.Struct value = 2;`).
fn beyond_the_package(pool: &DescriptorPool) -> Vec<FileDescriptorProto> {
    let global = DescriptorPool::global();
    let mut files: Vec<FileDescriptorProto> = global
        .file_descriptor_protos()
        .filter(|file| file.name() == "google/protobuf/field_mask.proto")
        .cloned()
        .collect();
    files.push(typed_struct("xds.type.v3"));
    files.push(typed_struct("udpa.type.v1"));
    files.retain(|file| pool.get_file_by_name(file.name()).is_none());
    files
}

fn typed_struct(package: &str) -> FileDescriptorProto {
    let field = |name: &str, number: i32, kind: Type, type_name: Option<&str>| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional as i32),
        r#type: Some(kind as i32),
        type_name: type_name.map(str::to_owned),
        ..FieldDescriptorProto::default()
    };
    FileDescriptorProto {
        name: Some(format!("{}/typed_struct.proto", package.replace('.', "/"))),
        package: Some(package.to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: vec!["google/protobuf/struct.proto".to_owned()],
        message_type: vec![DescriptorProto {
            name: Some("TypedStruct".to_owned()),
            field: vec![
                field("type_url", 1, Type::String, None),
                field("value", 2, Type::Message, Some(".google.protobuf.Struct")),
            ],
            ..DescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    }
}

/// Offline first: the package is there already, as the library depends on it; only a lock file made for other
/// platforms can make cargo want more.
fn envoy_types_manifest() -> Result<PathBuf, Box<dyn Error>> {
    let offline = metadata(&["--offline"]);
    let metadata = match offline {
        Ok(metadata) => metadata,
        Err(_) => metadata(&[])?,
    };
    let root = metadata["workspace_root"].as_str().ok_or("cargo metadata tells no workspace_root")?;
    println!("cargo:rerun-if-changed={}", Path::new(root).join("Cargo.lock").display());
    let mut found = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|package| package["name"] == "envoy-types")
        .filter_map(|package| package["manifest_path"].as_str());
    match (found.next(), found.next()) {
        (Some(manifest), None) => Ok(PathBuf::from(manifest)),
        (Some(_), Some(_)) => {
            Err("two versions of envoy-types are in the lock file: the tables can describe one only".into())
        }
        (None, _) => Err("envoy-types is not among the packages that cargo metadata lists".into()),
    }
}

fn metadata(extra: &[&str]) -> Result<serde_json::Value, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").ok_or("CARGO is not set: run by cargo only")?;
    let target = std::env::var("TARGET")?;
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &target])
        .args(extra)
        .current_dir(std::env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?)
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
