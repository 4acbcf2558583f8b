//! The names of users and groups, read from `/etc/passwd` and `/etc/group`.
//!
//! One of the facts that [`crate::settings`] resolves names with. The files are read directly rather than through the C
//! library, which may answer from the network: in a pod that is about to be redirected there is none to ask.

use std::collections::HashMap;

/// The numbers of users and groups by their names.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Accounts {
    /// Reads the contents of `/etc/passwd` and `/etc/group`. Lines that are not of their form are skipped, as the C
    /// library does; the first line of a name counts.
    pub fn parse(passwd: &str, group: &str) -> Self {
        Self { users: ids(passwd), groups: ids(group) }
    }

    pub fn user(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied()
    }

    pub fn group(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied()
    }
}

/// Both files have the name in the first field and the number in the third.
fn ids(text: &str) -> HashMap<String, u32> {
    let mut ids = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(id)) = (fields.next(), fields.nth(1).and_then(|id| id.parse().ok())) else { continue };
        if !name.is_empty() {
            ids.entry(name.to_owned()).or_insert(id);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_broken_lines_skipped() {
        let accounts = Accounts::parse(
            "root:x:0:0:root:/root:/bin/sh\n\nbroken\nproxy:x:many:1::\nenvoy:x:1337:9:::\nroot:x:5:5::\n:x:7:7::\n",
            "wheel:x:10:root\n",
        );
        assert_eq!(accounts.user("root"), Some(0));
        assert_eq!(accounts.user("envoy"), Some(1337));
        assert_eq!(accounts.user("proxy"), None);
        assert_eq!(accounts.user(""), None);
        assert_eq!(accounts.group("wheel"), Some(10));
        assert_eq!(accounts.group("root"), None);
    }
}
