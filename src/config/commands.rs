//! The commands: one row each with its help and its settings, and how clap is told of them. Without a subcommand pgnorth is the proxy.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::table::*;

/// What pgnorth can be started as.
#[derive(Debug)]
pub(super) struct Row {
    /// The subcommand; none is the proxy.
    pub(super) name: Option<&'static str>,
    about: &'static str,
    /// In the order of the help.
    groups: &'static [Group],
    examples: &'static str,
}

/// Settings that belong together.
type Group = &'static [&'static Setting];

const FINDING: Group = &[
    &SCOPE,
    &CITUS_GROUP,
    &KUBERNETES,
    &NAMESPACE,
    &SELECTOR,
    &PATRONI,
    &PATRONI_CA,
    &PATRONI_CERT,
    &PATRONI_KEY,
];
const PORTS: Group = &[&LISTEN, &ADMIN, &ADMIN_HOST, &ADMIN_TOKEN_FILE];
const SESSIONS: Group = &[
    &HOLD,
    &SWITCHOVER_HOLD,
    &FAILOVER_DRAIN,
    &CONNECT_TIMEOUT,
    &TCP_USER_TIMEOUT,
    &CLIENT_TCP_USER_TIMEOUT,
    &SOCKET_BUFFERS,
    &SOURCE,
    &MAX_SESSIONS,
    &WORKERS,
    &REFUSAL_CERT,
    &REFUSAL_KEY,
    &LAME_DUCK,
    &DRAIN,
];
const SERVICE_TO_WRITE: Group = &[&SERVICE, &ENDPOINTS, &LEASE];
const POD: Group = &[&POD_NAME, &POD_UID];
const LOGGING: Group = &[&LOG, &LOG_FORMAT];

pub(super) const PROXY: Row = Row {
    name: None,
    about: "Keeps one address pointing at the PostgreSQL primary of a Patroni cluster.",
    groups: &[PORTS, FINDING, SESSIONS, POD, LOGGING],
    examples: "\
  pgnorth --scope demo
      in Kubernetes: follow the Patroni cluster `demo` in the pod's namespace
  pgnorth --patroni http://10.0.0.1:8008,http://10.0.0.2:8008
      anywhere else: ask the members themselves
  pgnorth --scope demo --kubernetes=false --patroni http://10.0.0.1:8008,http://10.0.0.2:8008
      the same, and only answers of the cluster `demo` count
  pgnorth publish --help
      the settings of a subcommand",
};

pub(super) const PUBLISH: Row = Row {
    name: Some("publish"),
    about: "Keeps a Kubernetes Service pointing at the primary, without a hop of its own",
    groups: &[SERVICE_TO_WRITE, &[&ADMIN, &ADMIN_HOST], FINDING, LOGGING],
    examples: "\
  pgnorth publish --scope demo --service postgres-primary
      beside each Patroni: follow the cluster `demo`, and write who leads it into the EndpointSlice of `postgres-primary`
  pgnorth publish --scope demo --service postgres-primary --lease pgnorth-publish
      as a Deployment of two: one writes, the other takes over",
};

pub(super) const STATUS: Row = Row {
    name: Some("status"),
    about: "Shows what a running pgnorth knows and does; ends with 0 while it routes, 1 while it holds, 2 without contact",
    groups: &[&[&ADMIN, &WATCH, &FORMAT]],
    examples: "\
  pgnorth status
      of the pgnorth beside which it is started: same host, same pod, same PGNORTH_ADMIN
  pgnorth status --admin 10.0.0.7:8080 --watch
      of another one, until interrupted",
};

pub(super) const DOCTOR: Row = Row {
    name: Some("doctor"),
    about: "Checks credentials, rights, the lock, the members and the settings, and says what to fix",
    groups: &[&[&FORMAT], PORTS, FINDING, SESSIONS, SERVICE_TO_WRITE, POD, LOGGING],
    examples: "\
  pgnorth doctor --scope demo
      from a laptop, or in the pod: the settings of the proxy, and `doctor` before them
  pgnorth doctor --scope demo --service postgres-primary
      what `pgnorth publish` needs, too
  pgnorth doctor --scope demo --format json
      for scripts; the exit code is 0 if nothing failed, and 1 if something did",
};

pub(super) const HOLD_CLIENTS: Row = Row {
    name: Some("hold"),
    about: "Makes a running pgnorth hold new clients for a while; open sessions go on",
    groups: &[&[&FOR, &ADMIN, &ADMIN_TOKEN_FILE]],
    examples: "\
  pgnorth hold --for 5m
      of the pgnorth beside which it is started: same host, same pod, same variables",
};

pub(super) const RELEASE: Row = Row {
    name: Some("release"),
    about: "Ends the hold: who waits goes to the leader",
    groups: &[&[&ADMIN, &ADMIN_TOKEN_FILE]],
    examples: "\
  pgnorth release
      of the pgnorth beside which it is started",
};

pub(super) const CUT: Row = Row {
    name: Some("cut"),
    about: "Makes a running pgnorth end sessions: all, or those to one member",
    groups: &[&[&MEMBER, &ADMIN, &ADMIN_TOKEN_FILE]],
    examples: "\
  pgnorth cut --member demo-0
      sessions to demo-0 end; their clients may come again at once, unless they are held",
};

/// Every subcommand.
pub(super) const SUBCOMMANDS: [&Row; 6] = [&PUBLISH, &STATUS, &HOLD_CLIENTS, &RELEASE, &CUT, &DOCTOR];

/// The rules that hold for all settings.
const RULES: &str = "\
A flag wins over its environment variable; an empty variable counts as unset.
Durations have units: 500ms, 30s, 1m30s.";

/// The command line.
pub(super) fn command() -> Command {
    PROXY
        .dress(Command::new("pgnorth"))
        .version(concat!(
            env!("CARGO_PKG_VERSION"),
            " (commit ",
            env!("PGNORTH_COMMIT"),
            ")"
        ))
        // clap's own two stand first, under a heading of theirs.
        .disable_version_flag(true)
        .arg(about("version", 'V', ArgAction::Version, "Print version and commit"))
        .subcommand_help_heading("Instead of the proxy")
        .disable_help_subcommand(true)
        // Flags before a subcommand would be the proxy's, and be lost in silence.
        .args_conflicts_with_subcommands(true)
        .subcommands(SUBCOMMANDS.map(|row| row.dress(Command::new(row.name.unwrap_or_default()))))
}

/// Which row the arguments chose, and what was given for it.
pub(super) fn chosen(matches: &ArgMatches) -> (&'static Row, &ArgMatches) {
    let chosen = matches.subcommand().and_then(|(name, given)| {
        let row = SUBCOMMANDS.into_iter().find(|row| row.name == Some(name))?;
        Some((row, given))
    });
    chosen.unwrap_or((&PROXY, matches))
}

impl Row {
    /// As it is typed: `pgnorth publish`.
    pub(super) fn typed(&self) -> String {
        match self.name {
            Some(name) => format!("pgnorth {name}"),
            None => "pgnorth".to_owned(),
        }
    }

    pub(super) fn settings(&self) -> impl Iterator<Item = &'static Setting> {
        self.groups.iter().copied().flatten().copied()
    }

    fn dress(&self, command: Command) -> Command {
        command
            .about(self.about)
            .args(self.settings().map(Setting::argument))
            .disable_help_flag(true)
            .arg(about("help", 'h', ArgAction::Help, "Print this"))
            .after_help(format!("Examples:\n{}\n\n{RULES}", self.examples))
            .max_term_width(120)
    }
}

fn about(name: &'static str, short: char, action: ArgAction, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .short(short)
        .action(action)
        .help(help)
        .help_heading("About pgnorth")
}
