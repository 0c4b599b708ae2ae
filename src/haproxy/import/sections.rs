//! The directives that apply to a section, inherited ones included, and the servers that it uses.

use super::check::{self, Check};
use super::lines::{Directive, Section};
use super::server::{self, Address, Options, SectionFacts};
use super::suggestion::problem_of;

/// PgBouncer's port (its `listen_port`).
const POOLER: &str = "6432";

/// All sections.
pub(super) struct Sections<'a> {
    pub(super) all: &'a [Section],
    /// `ca-base` and `crt-base`.
    bases: [String; 2],
}

/// The health check and the servers of a section.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) check: Result<Check, String>,
    /// The line with the path.
    pub(super) path_at: usize,
    pub(super) servers: Vec<Server>,
    /// The options of all `default-server` lines that apply.
    pub(super) defaults: Options,
    pub(super) ends_sessions: bool,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) at: usize,
    pub(super) address: Result<Address, String>,
    pub(super) url: Result<String, String>,
}

impl Backend {
    pub(super) fn urls(&self) -> Vec<String> {
        self.servers
            .iter()
            .filter_map(|server| server.url.clone().ok())
            .collect()
    }

    /// Returns the reason why this section is not imported, if there is one.
    pub(super) fn stays(&self) -> Option<String> {
        match &self.check {
            Err(problem) => Some(problem.clone()),
            Ok(_) if self.urls().is_empty() => Some("no server has `check` and the port of a REST API".to_owned()),
            Ok(_) => None,
        }
    }

    /// Returns the port of the servers if all of them are PgBouncers.
    pub(super) fn pooler(&self) -> Option<&'static str> {
        let port = |server: &Server| server.address.as_ref().ok().and_then(|address| address.port.clone());
        let is_pooler = |server: &Server| port(server).as_deref() == Some(POOLER);
        (!self.servers.is_empty() && self.servers.iter().all(is_pooler)).then_some(POOLER)
    }

    /// Returns the part of a `--route` after the `=`.
    pub(super) fn leads_to(&self) -> String {
        let Ok(check) = &self.check else { return String::new() };
        let cut = (self.ends_sessions && limits_lag(check)).then(|| "lagging=cut".to_owned());
        let target = self.pooler().map(|port| format!("target={port}"));
        let keys = check.keys.iter().cloned().chain(cut).chain(target);
        let all: Vec<_> = [check.kind.as_str().to_owned()].into_iter().chain(keys).collect();
        all.join(",")
    }
}

impl<'a> Sections<'a> {
    pub(super) fn new(all: &'a [Section]) -> Self {
        let base = |word: &str| {
            let mut directives = all.iter().flat_map(|section| &section.directives);
            let found = directives.find(|directive| directive.words[0] == word);
            found
                .and_then(|directive| directive.words.get(1).cloned())
                .unwrap_or_default()
        };
        Self {
            all,
            bases: [base("ca-base"), base("crt-base")],
        }
    }

    /// Returns the section whose servers a section uses.
    pub(super) fn target(&self, place: usize) -> Option<usize> {
        if self.all[place].kind != "frontend" {
            return Some(place);
        }
        let always = self
            .effective(place, "use_backend")
            .into_iter()
            .find(|directive| directive.words.len() == 2);
        let default = self.effective(place, "default_backend").pop();
        let name = always.or(default)?.words.get(1)?;
        let leads = |section: &Section| ["backend", "listen"].contains(&section.kind.as_str()) && section.name == *name;
        self.all.iter().position(leads)
    }

    /// Returns the directives with this keyword that apply to the section; inherited ones from `defaults` come first.
    pub(super) fn effective(&self, place: usize, word: &str) -> Vec<&'a Directive> {
        let mut lineage = vec![place];
        lineage.extend(std::iter::successors(self.defaults(place), |place| {
            self.defaults(*place)
        }));
        let directives = lineage.iter().rev().flat_map(|place| &self.all[*place].directives);
        directives.filter(|directive| directive.words[0] == word).collect()
    }

    /// Returns the `defaults` section that a section inherits from: the one that it names, else the last one before it
    /// (HAProxy's manual, 4). A `defaults` section inherits only if it names another.
    fn defaults(&self, place: usize) -> Option<usize> {
        let section = &self.all[place];
        if section.kind == "defaults" && section.from.is_none() {
            return None;
        }
        let named = |other: &Section| section.from.as_ref().is_none_or(|name| *name == other.name);
        let mut before = self.all[..place].iter();
        before.rposition(|other| other.kind == "defaults" && named(other))
    }

    pub(super) fn last(&self, place: usize, word: &str) -> Option<&'a str> {
        self.effective(place, word).pop()?.words.get(1).map(String::as_str)
    }

    pub(super) fn backend(&self, place: usize) -> Backend {
        let mut defaults = Options::default();
        for directive in self.effective(place, "default-server") {
            defaults.read(&directive.words[1..], self.facts(place, None));
        }
        let (mut port, mut is_https) = (None, false);
        for directive in self.rules(place) {
            if directive.words.get(1).is_some_and(|word| word == "connect") {
                port = after(&directive.words, "port").or(port);
                is_https |= directive.words.iter().any(|word| word == "ssl");
            }
        }
        let (check, path_at) = self.check(place);
        let own = self.all[place].directives.iter();
        let servers = own.filter_map(|directive| {
            let words = &directive.words;
            let (address, rest) = match words[0].as_str() {
                "server" => (words.get(2)?, words.get(3..)?),
                "server-template" => (words.get(3)?, words.get(4..)?),
                _ => return None,
            };
            let mut options = defaults.clone();
            options.read(rest, self.facts(place, None));
            let address = server::address(address);
            let url = address
                .clone()
                .and_then(|address| options.url(&address, port, is_https))
                .and_then(|url| match problem_of(&[("patroni", url.clone())]) {
                    Some(problem) => Err(problem),
                    None => Ok(url),
                });
            let server = Server {
                at: directive.at,
                address,
                url,
            };
            Some((server, options.ends_sessions))
        });
        let (servers, ends): (Vec<_>, Vec<_>) = servers.unzip();
        Backend {
            check,
            path_at,
            servers,
            defaults,
            ends_sessions: ends.iter().all(|ends| *ends),
        }
    }

    /// Returns the `http-check` lines that apply: those of the section, unless it inherits them. As in HAProxy, an
    /// `option httpchk` or a rule replaces all inherited rules.
    pub(super) fn rules(&self, place: usize) -> Vec<&'a Directive> {
        let mut lineage = std::iter::successors(Some(place), |place| self.defaults(*place));
        let replaces_rules = |directive: &Directive| match &directive.words[..] {
            [option, httpchk, ..] => option == "option" && httpchk == "httpchk" || is_rule(directive),
            _ => false,
        };
        let section = lineage.find(|place| self.all[*place].directives.iter().any(replaces_rules));
        let directives = section.into_iter().flat_map(|place| &self.all[place].directives);
        directives.filter(|directive| is_rule(directive)).collect()
    }

    /// Returns the route that corresponds to the section's check, and the index of the line that has its path.
    pub(super) fn check(&self, place: usize) -> (Result<Check, String>, usize) {
        let Some(httpchk) = self.httpchk(place) else {
            return (
                Err("without `option httpchk`, HAProxy does not ask Patroni".to_owned()),
                0,
            );
        };
        for rule in self.rules(place) {
            let words: Vec<_> = rule.words.iter().map(String::as_str).collect();
            if words.get(1) == Some(&"expect") && !words.ends_with(&["status", "200"]) {
                return (
                    Err(format!("`{}` does not expect status 200", words.join(" "))),
                    rule.at,
                );
            }
        }
        // The later line sets the path, but an `option httpchk` without a path sets none.
        let sent = self
            .rules(place)
            .into_iter()
            .find_map(|rule| Some((after(&rule.words, "uri")?, rule.at)))
            .filter(|(_, at)| *at > httpchk.at || httpchk.words.len() == 2);
        let (uri, at) = sent.unwrap_or(match &httpchk.words[2..] {
            [] => ("/", httpchk.at),
            [uri] => (uri.as_str(), httpchk.at),
            [_, uri, ..] => (uri.as_str(), httpchk.at),
        });
        (check::read(uri), at)
    }

    /// Returns the `option httpchk` that applies; `None` if a later option selects another check. Also returns `None`
    /// if any `no option httpchk` applies: HAProxy does not start with such a line, because this option has no
    /// negation.
    fn httpchk(&self, place: usize) -> Option<&'a Directive> {
        let mut options = self.effective(place, "option").into_iter();
        let last = options.rfind(|directive| directive.words.get(1).is_some_and(|word| is_check(word)))?;
        let taken_back = self
            .effective(place, "no")
            .into_iter()
            .any(|no| no.words.ends_with(&last.words[..2]));
        (last.words[1] == "httpchk" && !taken_back).then_some(last)
    }

    pub(super) fn facts(&self, place: usize, check: Option<&Check>) -> SectionFacts<'_> {
        let servers = self.all[place]
            .directives
            .iter()
            .filter(|directive| directive.words[0].starts_with("server"));
        let weights: Vec<_> = servers.map(|directive| after(&directive.words, "weight")).collect();
        SectionFacts {
            replicas: check.is_none_or(|check| check.kind.is_for_replicas()),
            limits_lag: check.is_some_and(limits_lag),
            weights_differ: weights.iter().any(|weight| *weight != weights[0]),
            bases: self.bases.each_ref().map(String::as_str),
        }
    }
}

/// Returns true for the options that choose the protocol of health checks.
fn is_check(option: &str) -> bool {
    option == "httpchk" || option == "smtpchk" || option.ends_with("-check") || option.ends_with("-chk")
}

/// Returns true for the `http-check` lines that are steps of the check.
fn is_rule(directive: &Directive) -> bool {
    let other = ["disable-on-404", "send-state"];
    directive.words[0] == "http-check"
        && directive
            .words
            .get(1)
            .is_some_and(|word| !other.contains(&word.as_str()))
}

pub(super) fn limits_lag(check: &Check) -> bool {
    check.keys.iter().any(|key| key.starts_with("max-lag="))
}

/// Returns the word after `word`.
fn after<'a>(words: &'a [String], word: &str) -> Option<&'a str> {
    let at = words.iter().position(|other| other == word)?;
    words.get(at + 1).map(String::as_str)
}
