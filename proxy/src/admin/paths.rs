//! What the admin server answers: its paths, what they do, and what their queries may say. In Envoy's words where it has the
//! path.

/// A path of the admin server.
pub(super) struct AdminPath {
    pub(super) path: &'static str,
    what: &'static str,
    /// It changes something, and so wants POST.
    pub(super) mutates: bool,
    /// (name, what it does)
    parameters: &'static [(&'static str, &'static str)],
}

const fn get(path: &'static str, what: &'static str, parameters: &'static [(&'static str, &'static str)]) -> AdminPath {
    AdminPath { path, what, mutates: false, parameters }
}

const fn post(
    path: &'static str,
    what: &'static str,
    parameters: &'static [(&'static str, &'static str)],
) -> AdminPath {
    AdminPath { path, what, mutates: true, parameters }
}

const STATS_PARAMETERS: &[(&str, &str)] = &[
    ("usedonly", "Only include stats that have been written by system since restart"),
    ("filter", "Regular expression for filtering stats"),
    ("invert_filter", "Invert the filter regex"),
    ("format", "Format to use; One of (text, json, prometheus)"),
    ("type", "Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)"),
    ("histogram_buckets", "Histogram bucket display mode; One of (cumulative, disjoint, detailed, summary)"),
];

pub(super) const PATHS: &[AdminPath] = &[
    get("/", "Admin home page", &[]),
    get(
        "/clusters",
        "upstream cluster status",
        &[("filter", "Regular expression for filtering clusters by name"), ("format", "One of (text, json)")],
    ),
    get(
        "/config_dump",
        "dump current configs",
        &[
            ("resource", "The resource to dump"),
            (
                "mask",
                "The mask to apply. When both resource and mask are specified, the mask is applied to every element in \
                 the desired repeated field so that only a subset of fields are returned",
            ),
            ("name_regex", "Dump only the currently loaded configurations whose names match the specified regex"),
            ("include_eds", "Dump currently loaded configuration including EDS"),
        ],
    ),
    get("/contention", "dump current mutex contention stats (if enabled)", &[]),
    post(
        "/drain_listeners",
        "drain listeners",
        &[
            ("graceful", "When draining listeners, enter a graceful drain period prior to closing listeners"),
            ("skip_exit", "When draining listeners, drain the connections but never stop the listeners"),
            ("inboundonly", "Drains all inbound listeners"),
        ],
    ),
    post("/healthcheck/fail", "cause the server to fail health checks", &[]),
    post("/healthcheck/ok", "cause the server to pass health checks", &[]),
    get("/help", "print out list of admin commands", &[]),
    get("/hot_restart_version", "print the hot restart compatibility version", &[]),
    get("/init_dump", "dump what the start waits for", &[]),
    get("/listeners", "print listener info", &[("format", "File format to use; One of (text, json)")]),
    post(
        "/logging",
        "query/change logging levels",
        &[
            (
                "paths",
                "Change multiple logging levels by setting to \
                 <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>",
            ),
            (
                "level",
                "desired logging level, this will change all loggers's level; One of (, trace, debug, info, warning, \
                 error, critical, off)",
            ),
        ],
    ),
    get("/memory", "print current allocation/heap usage", &[]),
    post("/quitquitquit", "exit the server", &[]),
    get("/ready", "print server state, return 200 if LIVE, otherwise return 503", &[]),
    post("/reopen_logs", "reopen access logs", &[]),
    post("/reset_counters", "reset all counters to zero", &[]),
    get("/runtime", "print runtime values", &[]),
    get("/server_info", "print server version/status information", &[]),
    get("/stats", "print server stats", STATS_PARAMETERS),
    get("/stats/prometheus", "print server stats in prometheus format", STATS_PARAMETERS),
];

/// As `/help` shows it.
pub(super) fn help() -> String {
    let mut out = "admin commands are:\n".to_owned();
    for AdminPath { path, what, mutates, parameters } in PATHS {
        out += &format!("  {path}{}: {what}\n", if *mutates { " (POST)" } else { "" });
        for (name, what) in *parameters {
            out += &format!("      {name}: {what}\n");
        }
    }
    out
}
