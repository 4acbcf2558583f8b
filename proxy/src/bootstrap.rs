//! The bootstrap as the command line has it: a file, a text merged over it, and what is said of the node. Stands between
//! `args` and `server`; what the bootstrap means is `config::bootstrap`.

use weft_xds::{FieldError, json, pb::envoy::config::bootstrap::v3::Bootstrap as Message};

use crate::{
    args::{Args, NodeOverrides},
    config::{
        bootstrap::Bootstrap,
        message_file::{self, MessageFileError},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("At least one of --config-path or --config-yaml should be non-empty")]
    Nothing,
    #[error(transparent)]
    File(#[from] MessageFileError),
    #[error(transparent)]
    Message(#[from] FieldError),
    #[error("--config-yaml: {0}")]
    Text(FieldError),
}

/// Reads, merges and checks the whole configuration.
pub fn load(args: &Args) -> Result<Bootstrap, LoadError> {
    let text = Some(&args.config_yaml).filter(|text| !text.is_empty());
    if args.config_path.is_none() && text.is_none() {
        return Err(LoadError::Nothing);
    }
    let mut message = Message::default();
    if let Some(path) = &args.config_path {
        message = message_file::parse(path, message_file::bytes(path)?, args.static_fields)?;
    }
    if let Some(text) = text {
        let over: Message = message_file::yaml(text, args.static_fields).map_err(LoadError::Text)?;
        message = json::merge(&message, &over)?;
    }
    override_node(&mut message, &args.node);
    let bootstrap = Bootstrap::from_proto(message)?;
    bootstrap.check_node()?;
    Ok(bootstrap)
}

fn override_node(message: &mut Message, node: &NodeOverrides) {
    let NodeOverrides { id, cluster, zone } = node;
    if *node == NodeOverrides::default() {
        return;
    }
    let told = message.node.get_or_insert_default();
    for (field, value) in [(&mut told.id, id), (&mut told.cluster, cluster)] {
        if !value.is_empty() {
            field.clone_from(value);
        }
    }
    if !zone.is_empty() {
        told.locality.get_or_insert_default().zone.clone_from(zone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Command;

    fn args(words: &[&str]) -> Args {
        match Args::parse(std::iter::once("weft-proxy").chain(words.iter().copied()).map(Into::into)) {
            Ok(Command::Run(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        let path = path.to_str().expect("UTF-8").to_owned();
        (folder, path)
    }

    #[test]
    fn the_text_goes_over_the_file_and_the_command_line_over_both() {
        let (_folder, path) = file("b.yaml", "node: {id: file, cluster: file}\nstats_flush_interval: 1s");
        let text = "node: {id: text, locality: {region: r}}";
        let loaded =
            load(&args(&["-c", &path, "--config-yaml", text, "--service-cluster", "line", "--service-zone", "z"]));
        let node = loaded.expect("a bootstrap").node;
        assert_eq!((node.id.as_str(), node.cluster.as_str()), ("text", "line"));
        let locality = node.locality.expect("a locality");
        assert_eq!((locality.region.as_str(), locality.zone.as_str()), ("r", "z"));
    }

    #[test]
    fn a_file_is_what_its_name_says() {
        let yaml = "node: {id: a}";
        let (_folder, path) = file("b", yaml);
        assert!(matches!(load(&args(&["-c", &path])), Err(LoadError::File(MessageFileError::Message(_)))), "JSON");
        let (_folder, path) = file("b.yml", yaml);
        assert_eq!(load(&args(&["-c", &path])).expect("YAML").node.id, "a");
        let (_folder, path) = file("b.json", r#"{"node": {"id": "a"}}"#);
        assert_eq!(load(&args(&["-c", &path])).expect("JSON").node.id, "a");
        let (_folder, path) = file("b.pb", "\x0a\x03\x0a\x01a");
        assert_eq!(load(&args(&["-c", &path])).expect("a message").node.id, "a");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refusal = |words: &[&str]| load(&args(words)).expect_err("a refusal").to_string();
        assert_eq!(refusal(&[]), "At least one of --config-path or --config-yaml should be non-empty");
        assert_eq!(refusal(&["-c", "/nonexistent"]), "Invalid path: /nonexistent");
        let text = "static_resources: {clusters: [{name: c, bogus: 1}]}";
        let reason = refusal(&["--config-yaml", text]);
        assert!(reason.starts_with("--config-yaml: static_resources.clusters[0].bogus: unknown field"), "{reason}");
        assert!(load(&args(&["--config-yaml", text, "--allow-unknown-static-fields"])).is_ok());
    }
}
