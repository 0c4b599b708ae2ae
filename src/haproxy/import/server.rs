//! `server`, `server-template` and `default-server`: the REST API that HAProxy asks, and the outcome of each option.

use super::Outcome::{self, NoEquivalent, NotNeeded, Setting};
use super::words::{self, SERVER, UNKNOWN};

/// The options of a server that matter to pgnorth. A server starts with those of `default-server`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) is_checked: bool,
    /// Host of the check, if it is not the server's.
    check_host: Option<String>,
    /// Port of the check, if it is not the server's.
    check_port: Option<String>,
    is_https: bool,
    /// True if sessions end when the server goes down.
    pub(super) ends_sessions: bool,
    pub(super) weight: Option<String>,
}

/// A part of a line: an outcome, or settings to offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Outcome(Outcome),
    Offer(Vec<(&'static str, String)>),
}

/// The properties of a section that determine how server options translate.
#[derive(Clone, Copy, Debug)]
pub(super) struct SectionFacts<'a> {
    /// True if the section leads to replicas.
    pub(super) replicas: bool,
    /// True if the route has a limit of lag.
    pub(super) limits_lag: bool,
    /// True if the weights of the section's servers differ.
    pub(super) weights_differ: bool,
    /// `ca-base` and `crt-base` of `global`.
    pub(super) bases: [&'a str; 2],
}

impl Options {
    /// Reads the words after the server's address. Returns their outcomes.
    pub(super) fn read(&mut self, words: &[String], facts: SectionFacts<'_>) -> Vec<Part> {
        let (mut parts, mut words) = (Vec::new(), words.iter());
        while let Some(word) = words.next() {
            let mut value = || words.next().cloned().unwrap_or_default();
            let outcome = match word.as_str() {
                "check" => self.set(|options| options.is_checked = true),
                "no-check" => self.set(|options| options.is_checked = false),
                "port" => {
                    self.check_port = Some(value());
                    None
                }
                "addr" => {
                    self.check_host = Some(value());
                    None
                }
                "check-ssl" => self.set(|options| options.is_https = true),
                "weight" => {
                    let weight = value();
                    self.weight = Some(weight.clone());
                    Some(Part::Outcome(weight_outcome(&weight, facts)))
                }
                "on-marked-down" => {
                    self.ends_sessions = value() == "shutdown-sessions";
                    Some(Part::Outcome(marked_down(facts)))
                }
                "on-marked-up" => {
                    let _action = value();
                    Some(Part::Outcome(match facts.replicas {
                        false => NotNeeded("on-marked-up: one member at a time is the primary".to_owned()),
                        true => NoEquivalent("on-marked-up: sessions stay on a fit replica when another replica becomes fit".to_owned()),
                    }))
                }
                "backup" => Some(Part::Outcome(match facts.replicas {
                    false => NotNeeded("backup: one member at a time is the primary".to_owned()),
                    true => NoEquivalent(
                        "backup: in --route, prefer.NAME=VALUE prefers members with this tag, and fallback=primary falls back to \
                         the primary"
                            .to_owned(),
                    ),
                })),
                "verify" => Some(match value().as_str() {
                    "none" => Part::Outcome(NoEquivalent(
                        "verify none: pgnorth always verifies certificates; set --patroni-ca to the CA of Patroni's REST API".to_owned(),
                    )),
                    _ => Part::Outcome(NotNeeded("verify: pgnorth always verifies".to_owned())),
                }),
                "ca-file" => Some(ca_file(&value(), facts)),
                "crt" => Some(certificate(&value(), facts)),
                "source" => Some(source(&value())),
                "usesrc" | "interface" => {
                    Some(Part::Outcome(NoEquivalent(format!("{word} {}: --source accepts only addresses", value()))))
                }
                "tcp-ut" => Some(Part::Offer(vec![("tcp-user-timeout", duration(&value()))])),
                _ => {
                    let (values, meaning) = words::option(SERVER, word).unwrap_or((0, UNKNOWN));
                    let _values: Vec<_> = words.by_ref().take(values).collect();
                    Some(Part::Outcome(meaning.of(word)))
                }
            };
            parts.extend(outcome);
        }
        parts
    }

    fn set(&mut self, change: impl FnOnce(&mut Self)) -> Option<Part> {
        change(self);
        None
    }

    /// Returns the base URL of the REST API that HAProxy asks for this server, or the reason why there is none. `port`
    /// and `is_https` are those of `http-check connect`.
    pub(super) fn url(&self, address: &Address, port: Option<&str>, is_https: bool) -> Result<String, String> {
        if !self.is_checked {
            return Err("HAProxy does not check this server; pgnorth uses every member that is fit".to_owned());
        }
        let port = port.or(self.check_port.as_deref());
        let Some(port) = port.filter(|port| Some(*port) != address.port.as_deref()) else {
            return Err("the check goes to the server's own port, not to Patroni's REST API".to_owned());
        };
        let host = self.check_host.as_deref().unwrap_or(&address.host);
        let host = match host.contains(':') && !host.starts_with('[') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let scheme = if self.is_https || is_https { "https" } else { "http" };
        Ok(format!("{scheme}://{host}:{port}"))
    }
}

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    /// PostgreSQL's or the pooler's port, as it is written; `None` if HAProxy keeps the port that the client used.
    pub(super) port: Option<String>,
}

/// Parses a server's address.
pub(super) fn address(text: &str) -> Result<Address, String> {
    let text = ["ipv4@", "ipv6@", "tcp@", "tcp4@", "tcp6@"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(text);
    if text.contains(['/', '@']) {
        return Err(format!("{text} is not a TCP address"));
    }
    if text.starts_with('_') {
        return Err(format!(
            "{text} is an SRV record, which pgnorth does not read: list the members' URLs in --patroni"
        ));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() => (host, Some(port)),
        Some((_, port)) if port.starts_with(['+', '-']) => {
            return Err(format!(
                "{text} has a port relative to the port that the client connected to (+N/-N), which pgnorth does not support"
            ));
        }
        _ => (text, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(Address {
        host: host.to_owned(),
        port: port.map(str::to_owned),
    })
}

/// Converts one of HAProxy's times, which are in milliseconds if they have no unit.
pub(super) fn duration(text: &str) -> String {
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => match text.strip_suffix("000") {
            Some(seconds) if !seconds.is_empty() => format!("{seconds}s"),
            _ => format!("{text}ms"),
        },
        false => text.to_owned(),
    }
}

fn weight_outcome(weight: &str, facts: SectionFacts<'_>) -> Outcome {
    match (facts.replicas, facts.weights_differ) {
        (false, _) => NotNeeded("weight: one member at a time is the primary".to_owned()),
        (true, false) => NotNeeded("weight: it is the same for all servers".to_owned()),
        (true, true) => NoEquivalent(format!(
            "weight {weight}: the member with the fewest sessions gets the client, whatever its weight"
        )),
    }
}

fn marked_down(facts: SectionFacts<'_>) -> Outcome {
    match (facts.replicas, facts.limits_lag) {
        (true, true) => Setting("lagging=cut".to_owned()),
        (true, false) => {
            NotNeeded("on-marked-down: sessions to a member that is no longer a running replica always end".to_owned())
        }
        (false, _) => NotNeeded("on-marked-down: sessions to a former primary always end".to_owned()),
    }
}

fn ca_file(file: &str, facts: SectionFacts<'_>) -> Part {
    match file.starts_with('@') {
        true => Part::Outcome(NotNeeded(format!("ca-file {file}: pgnorth uses the system's CAs"))),
        false => Part::Offer(vec![("patroni-ca", in_folder(facts.bases[0], file))]),
    }
}

/// Returns the settings for `crt`. HAProxy's file has both the certificate and its key; pgnorth reads each from the
/// file that its flag names, and skips the rest.
fn certificate(file: &str, facts: SectionFacts<'_>) -> Part {
    let file = in_folder(facts.bases[1], file);
    Part::Offer(vec![("patroni-cert", file.clone()), ("patroni-key", file)])
}

/// Returns the setting for `source`, without its port.
pub(super) fn source(text: &str) -> Part {
    let host = address(text).map_or_else(|_| text.to_owned(), |address| address.host);
    Part::Offer(vec![("source", host)])
}

fn in_folder(base: &str, file: &str) -> String {
    match base.is_empty() || file.starts_with('/') {
        true => file.to_owned(),
        false => format!("{}/{file}", base.trim_end_matches('/')),
    }
}
