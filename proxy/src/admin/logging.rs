//! `/logging`: the levels of the process's own log, shown and changed.

use std::fmt::Write as _;

use http::StatusCode;

use crate::{
    admin::{Admin, Answer, text},
    logging::{Component, Level},
};

const USAGE: &str = "usage: /logging?<name>=<level> (change single level)\n\
                     usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
                     usage: /logging?level=<level> (change all levels)\n\
                     levels: trace debug info warning error critical off \n";

/// What a query asks for.
#[derive(Debug, PartialEq)]
enum Change {
    Nothing,
    All(Level),
    Some(Vec<(Component, Level)>),
}

impl Admin {
    pub(super) fn logging(&self, query: &str) -> Answer {
        match change(query) {
            Err(reason) => text(StatusCode::BAD_REQUEST, format!("error: {reason}\n\n{USAGE}")),
            Ok(change) => {
                match change {
                    Change::Nothing => {}
                    Change::All(level) => self.log.set_all(level),
                    Change::Some(levels) => self.log.set(&levels),
                }
                text(StatusCode::OK, self.active_loggers())
            }
        }
    }

    fn active_loggers(&self) -> String {
        let mut out = "active loggers:\n".to_owned();
        for (component, level) in self.log.levels() {
            let _ = writeln!(out, "  {}: {}", component.name(), level.name());
        }
        out.push('\n');
        out
    }
}

fn change(query: &str) -> Result<Change, &'static str> {
    let (name, value) = match query.split('&').collect::<Vec<_>>()[..] {
        [""] => return Ok(Change::Nothing),
        [pair] => pair.split_once('=').unwrap_or((pair, "")),
        _ => return Err("invalid number of parameters"),
    };
    match name {
        "level" => level(value).map(Change::All),
        "paths" => {
            let pairs = value.split(',').map(|pair| {
                let (name, value) = pair.split_once(':').ok_or("empty logger name or empty logger level")?;
                Ok((component(name)?, level(value)?))
            });
            pairs.collect::<Result<_, _>>().map(Change::Some)
        }
        name => Ok(Change::Some(vec![(component(name)?, level(value)?)])),
    }
}

fn component(name: &str) -> Result<Component, &'static str> {
    Component::from_name(name).ok_or("unknown logger name")
}

fn level(name: &str) -> Result<Level, &'static str> {
    Level::from_name(name).ok_or("unknown logger level")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_changes_one_level_some_or_all() {
        let upstream = Component::from_name("upstream").expect("a component");
        let http = Component::from_name("http").expect("a component");
        assert_eq!(change(""), Ok(Change::Nothing));
        assert_eq!(change("level=trace"), Ok(Change::All(Level::Trace)));
        assert_eq!(change("upstream=debug"), Ok(Change::Some(vec![(upstream, Level::Debug)])));
        let two = vec![(upstream, Level::Debug), (http, Level::Off)];
        assert_eq!(change("paths=upstream:debug,http:off"), Ok(Change::Some(two)));
        assert_eq!(change("bogus=debug"), Err("unknown logger name"));
        assert_eq!(change("level=bogus"), Err("unknown logger level"));
    }
}
