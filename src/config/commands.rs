//! One row per command: help, settings, exit statuses and examples; and the command line made of the rows. Without a
//! subcommand pgnorth is the proxy.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use super::table::*;

/// One command as users see it.
#[derive(Debug)]
pub struct CommandRow {
    /// The subcommand; none for the proxy.
    pub name: Option<&'static str>,
    /// The purpose, in one phrase.
    pub about: &'static str,
    /// The positional argument of the command: placeholder and help.
    operand: Option<(&'static str, &'static str)>,
    /// The settings, in the order of the help.
    groups: &'static [Group],
    /// The exit statuses, each with its condition.
    pub exit_statuses: &'static [(u8, &'static str)],
    /// Command lines, each followed by an indented explanation.
    pub examples: &'static str,
}

/// Settings that belong together.
type Group = &'static [&'static Setting];

const FINDING: Group = &[
    &SCOPE,
    &CITUS_GROUP,
    &KUBERNETES,
    &NAMESPACE,
    &SELECTOR,
    &ETCD,
    &ETCD_NAMESPACE,
    &ETCD_USER,
    &ETCD_PASSWORD_FILE,
    &ETCD_CA,
    &ETCD_CERT,
    &ETCD_KEY,
    &PATRONI,
    &PATRONI_CA,
    &PATRONI_CERT,
    &PATRONI_KEY,
];
const PORTS: Group = &[
    &LISTEN,
    &ROUTE,
    &PORTS_PRESET,
    &PROXY_PROTOCOL_FROM,
    &ADMIN,
    &ADMIN_HOST,
    &ADMIN_TOKEN_FILE,
];
const SESSIONS: Group = &[
    &HOLD,
    &SWITCHOVER_HOLD,
    &FAILOVER_DRAIN,
    &CONNECT_TIMEOUT,
    &TCP_USER_TIMEOUT,
    &CLIENT_TCP_USER_TIMEOUT,
    &SOCKET_BUFFERS,
    &TARGET,
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

const ENDED: &str = "after SIGTERM or SIGINT";
const FAILED: &str = "on a runtime failure, which the log names";
const INVALID: &str = "if the settings are invalid";
const DONE: &str = "once the command is carried out";
const REFUSED: &str = "if the command is refused or not finished in time, or the token file cannot be read";
const NO_CONTACT: &str = "if pgnorth cannot be reached, or the settings are invalid";

/// The proxy, which has no subcommand.
pub(super) const PROXY: CommandRow = CommandRow {
    name: None,
    about: "Keeps one address pointing at the PostgreSQL primary of a Patroni cluster",
    operand: None,
    groups: &[PORTS, FINDING, SESSIONS, POD, LOGGING],
    exit_statuses: &[(0, ENDED), (1, FAILED), (2, INVALID)],
    examples: "\
  pgnorth --scope demo
      in Kubernetes: follow the Patroni cluster `demo` in the pod's namespace
  pgnorth --scope demo --etcd https://10.0.0.1:2379,https://10.0.0.2:2379,https://10.0.0.3:2379
      on hosts: follow the Patroni cluster `demo` in etcd
  pgnorth --patroni http://10.0.0.1:8008,http://10.0.0.2:8008
      elsewhere: ask the members' REST API
  pgnorth --scope demo --kubernetes=false --patroni http://10.0.0.1:8008,http://10.0.0.2:8008
      the same, but only answers of the cluster `demo` count
  pgnorth publish --help
      the settings of a subcommand",
};

pub(super) const PUBLISH: CommandRow = CommandRow {
    name: Some("publish"),
    about: "Keeps a Kubernetes Service pointing at the primary, without a proxy in between",
    operand: None,
    groups: &[SERVICE_TO_WRITE, &[&TARGET], &[&ADMIN, &ADMIN_HOST], FINDING, LOGGING],
    exit_statuses: &[(0, ENDED), (1, FAILED), (2, INVALID)],
    examples: "\
  pgnorth publish --scope demo --service postgres-primary
      beside each Patroni: follow the cluster `demo`, and write its leader into the EndpointSlice of `postgres-primary`
  pgnorth publish --scope demo --service postgres-primary --lease pgnorth-publish
      as a Deployment with two replicas: one writes, the other takes over",
};

pub(super) const WATCH_LEADER: CommandRow = CommandRow {
    name: Some("watch"),
    about: "Makes and records the proxy's decisions without serving clients; compares them with HAProxy",
    operand: None,
    groups: &[
        &[&HAPROXY, &HAPROXY_BACKEND],
        &[&ADMIN, &ADMIN_HOST],
        FINDING,
        &[&HOLD, &SWITCHOVER_HOLD],
        LOGGING,
    ],
    exit_statuses: &[(0, ENDED), (1, FAILED), (2, INVALID)],
    examples: "\
  pgnorth watch --patroni http://10.0.0.1:8008,http://10.0.0.2:8008
      beside another proxy: the admin port shows what pgnorth decides, and how long each change of leader takes
  pgnorth watch --scope demo --etcd https://10.0.0.1:2379,https://10.0.0.2:2379 --admin '[::]:8081'
      the same from etcd, with another admin port
  pgnorth watch --patroni http://10.0.0.1:8008,http://10.0.0.2:8008 --haproxy unix:/run/haproxy/admin.sock
      beside HAProxy: for each change of leader, one line reports how long HAProxy had a wrong server up",
};

pub(super) const STATUS: CommandRow = CommandRow {
    name: Some("status"),
    about: "Prints the state of a running pgnorth: routing, leader, lock, members, sessions",
    operand: None,
    groups: &[&[&ADMIN, &WATCH, &FORMAT]],
    exit_statuses: &[
        (0, "if the running pgnorth routes"),
        (1, "if it holds or fences"),
        (2, NO_CONTACT),
    ],
    examples: "\
  pgnorth status
      the pgnorth on the same host or in the same pod, with the same PGNORTH_ADMIN
  pgnorth status --admin 10.0.0.7:8080 --watch
      another pgnorth, until interrupted",
};

pub(super) const DOCTOR: CommandRow = CommandRow {
    name: Some("doctor"),
    about: "Checks credentials, permissions, the lock, the members and the settings, and suggests fixes",
    operand: None,
    groups: &[&[&FORMAT], PORTS, FINDING, SESSIONS, SERVICE_TO_WRITE, POD, LOGGING],
    exit_statuses: &[
        (0, "if no check failed; warnings are not failures"),
        (1, "if a check failed"),
        (2, INVALID),
    ],
    examples: "\
  pgnorth doctor --scope demo
      from a workstation or in the pod, with the settings of the proxy
  pgnorth doctor --scope demo --service postgres-primary
      also what `pgnorth publish` needs
  pgnorth doctor --scope demo --format json
      for scripts",
};

pub(super) const HOLD_CLIENTS: CommandRow = CommandRow {
    name: Some("hold"),
    about: "Makes a running pgnorth hold new clients; open sessions continue",
    operand: None,
    groups: &[&[&FOR, &ADMIN, &ADMIN_TOKEN_FILE]],
    exit_statuses: &[(0, DONE), (1, REFUSED), (2, NO_CONTACT)],
    examples: "\
  pgnorth hold --for 5m
      the pgnorth on the same host or in the same pod, with the same variables",
};

pub(super) const RELEASE: CommandRow = CommandRow {
    name: Some("release"),
    about: "Ends the hold: waiting clients go to the leader, if there is one",
    operand: None,
    groups: &[&[&ADMIN, &ADMIN_TOKEN_FILE]],
    exit_statuses: &[(0, DONE), (1, REFUSED), (2, NO_CONTACT)],
    examples: "\
  pgnorth release
      the pgnorth on the same host or in the same pod",
};

pub(super) const CUT: CommandRow = CommandRow {
    name: Some("cut"),
    about: "Makes a running pgnorth end sessions: all, or those to one member",
    operand: None,
    groups: &[&[&MEMBER, &ADMIN, &ADMIN_TOKEN_FILE]],
    exit_statuses: &[(0, DONE), (1, REFUSED), (2, NO_CONTACT)],
    examples: "\
  pgnorth cut --member demo-0
      sessions to demo-0 end; their clients may reconnect immediately, unless they are held",
};

pub(super) const RELOAD: CommandRow = CommandRow {
    name: Some("reload"),
    about: "Replaces a running pgnorth with the binary now on disk and the present settings",
    operand: None,
    groups: &[&[&PID], PORTS, FINDING, SESSIONS, POD, LOGGING],
    exit_statuses: &[
        (0, "once the new process has taken over"),
        (1, "if it has not; the running process keeps its settings"),
        (2, NO_CONTACT),
    ],
    examples: "\
  systemctl reload pgnorth
      ExecReload= of the unit is `pgnorth reload`: the new process gets the unit's variables as they are now
  pgnorth reload --workers 4
      by hand: the given flags replace those of the running process; its other settings stay",
};

pub(super) const IMPORT: CommandRow = CommandRow {
    name: Some("import"),
    about: "Reads HAProxy's configuration, and prints the equivalent pgnorth settings, line by line",
    operand: Some((
        "FILE",
        "HAProxy's configuration; several files are one configuration, as with haproxy -f",
    )),
    groups: &[],
    exit_statuses: &[
        (
            0,
            "if there are equivalent settings; lines without an equivalent are marked",
        ),
        (
            2,
            "if a file cannot be read, no section leads to Patroni members, or the resulting settings are invalid",
        ),
    ],
    examples: "\
  pgnorth import /etc/haproxy/haproxy.cfg
      each line with its equivalent; then the settings as a command, and for /etc/default/pgnorth",
};

/// Every subcommand.
const SUBCOMMANDS: &[&CommandRow] = COMMANDS.split_at(1).1;

/// Every command, the proxy first.
pub const COMMANDS: [&CommandRow; 10] = [
    &PROXY,
    &PUBLISH,
    &WATCH_LEADER,
    &STATUS,
    &HOLD_CLIENTS,
    &RELEASE,
    &CUT,
    &RELOAD,
    &DOCTOR,
    &IMPORT,
];

/// The rules that apply to all settings.
const RULES: &str = "\
A flag overrides its environment variable; an empty variable counts as unset.
Durations have units: 500ms, 30s, 1m30s.";

/// Returns the command line: the one definition behind parsing, `--help`, man pages and completions.
pub fn command_line() -> Command {
    PROXY
        .complete(Command::new("pgnorth"))
        .version(concat!(
            env!("CARGO_PKG_VERSION"),
            " (commit ",
            env!("PGNORTH_COMMIT"),
            ")"
        ))
        // clap lists its own help and version flags first, under another heading.
        .disable_version_flag(true)
        .arg(about("version", 'V', ArgAction::Version, "Prints version and commit"))
        .subcommand_help_heading("Instead of the proxy")
        .disable_help_subcommand(true)
        // A flag before the subcommand is a setting of the proxy, which the subcommand would ignore silently.
        .args_conflicts_with_subcommands(true)
        .subcommands(
            SUBCOMMANDS
                .iter()
                .map(|row| row.complete(Command::new(row.name.unwrap_or_default()))),
        )
}

/// Returns the command's flags among these arguments, with their values as written: a repeated flag with each value.
fn written<'a>(row: &CommandRow, flags: &'a ArgMatches) -> Vec<(&'static str, &'a str)> {
    let values = |setting: &Setting| flags.try_get_many::<String>(setting.flag).ok().flatten();
    let written = |setting: &'static Setting| {
        let values = values(setting).into_iter().flatten();
        values.map(|value| (setting.flag, value.as_str()))
    };
    row.settings().flat_map(written).collect()
}

/// Returns the flags of `pgnorth reload` that are meant for the new process.
pub(super) fn for_the_successor(flags: &ArgMatches) -> Vec<(String, String)> {
    let all = written(&RELOAD, flags).into_iter();
    all.filter(|(flag, _)| *flag != PID.flag)
        .map(|(flag, value)| (flag.to_owned(), value.to_owned()))
        .collect()
}

/// Returns the proxy's `arguments`, beginning with the program's name, in which `flags` replace the flags of the same
/// names. Returns `None` if `arguments` cannot be parsed.
pub fn with_flags(arguments: Vec<OsString>, flags: &[(String, String)]) -> Option<Vec<OsString>> {
    let program = arguments.first()?.clone();
    let matches = command_line().try_get_matches_from(arguments).ok()?;
    let kept = written(&PROXY, &matches).into_iter();
    let kept = kept.filter(|(flag, _)| flags.iter().all(|(other, _)| other != flag));
    let given = flags.iter().map(|(flag, value)| (flag.as_str(), value.as_str()));
    let written = kept
        .chain(given)
        .map(|(flag, value)| format!("--{flag}={value}").into());
    Some([program].into_iter().chain(written).collect())
}

/// Returns the row that the arguments select, and the arguments for it.
pub(super) fn chosen(matches: &ArgMatches) -> (&'static CommandRow, &ArgMatches) {
    let chosen = matches.subcommand().and_then(|(name, given)| {
        let row = SUBCOMMANDS.iter().copied().find(|row| row.name == Some(name))?;
        Some((row, given))
    });
    chosen.unwrap_or((&PROXY, matches))
}

impl CommandRow {
    /// Returns the command as it is typed: `pgnorth publish`.
    pub fn typed(&self) -> String {
        match self.name {
            Some(name) => format!("pgnorth {name}"),
            None => "pgnorth".to_owned(),
        }
    }

    /// Returns the command's settings in the order of the help.
    pub fn settings(&self) -> impl Iterator<Item = &'static Setting> {
        self.groups.iter().copied().flatten().copied()
    }

    fn complete(&self, command: Command) -> Command {
        let statuses: String = (self.exit_statuses.iter())
            .map(|(status, when)| format!("  {status}  {when}\n"))
            .collect();
        let examples = self.examples;
        command
            .about(self.about)
            .args(self.settings().map(Setting::argument))
            .args(self.operand.map(|(placeholder, help)| operand(placeholder, help)))
            .disable_help_flag(true)
            .arg(about(
                "help",
                'h',
                ArgAction::Help,
                "Prints this help; -h prints a shorter one",
            ))
            .after_help(format!("Examples:\n  {examples}\n\nExit status:\n{statuses}\n{RULES}"))
            .max_term_width(120)
    }
}

/// The id of a command's operand, which has no flag.
const OPERAND: &str = "operand";

fn operand(placeholder: &'static str, help: &'static str) -> Arg {
    Arg::new(OPERAND)
        .value_name(placeholder)
        .help(help)
        .required(true)
        .num_args(1..)
        .value_hint(ValueHint::FilePath)
        .value_parser(ValueParser::path_buf())
}

/// Returns the files that are given as operands.
pub(super) fn files(matches: &ArgMatches) -> Vec<PathBuf> {
    let files = matches.get_many::<PathBuf>(OPERAND).into_iter().flatten();
    files.cloned().collect()
}

fn about(name: &'static str, short: char, action: ArgAction, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .short(short)
        .action(action)
        .help(help)
        .help_heading("About pgnorth")
}
