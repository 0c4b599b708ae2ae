//! The sections as routes: listeners with their backends, and the outcome of each of their lines.

use super::Outcome::{self, NoEquivalent, NotNeeded, Setting};
use super::check::Check;
use super::lines::{Directive, Line, Section};
use super::routes::{Routes, listener};
use super::sections::{Backend, Sections};
use super::server::{self, Options, Part};
use super::suggestion::{Suggestion, problem_of};
use super::words::{self, BIND, GLOBAL, PROXY};

/// PostgreSQL's port.
const POSTGRES: &str = "5432";

/// Turns sections into settings, and notes the outcome of each line.
pub(super) struct Reader<'a> {
    lines: &'a mut [Line],
    sections: Sections<'a>,
    /// The settings that all routes share, with the line of each.
    shared: Vec<(&'static str, String, usize)>,
    routes: Routes,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lines: &'a mut [Line], sections: &'a [Section]) -> Self {
        Self {
            lines,
            sections: Sections::new(sections),
            shared: Vec::new(),
            routes: Routes::default(),
        }
    }

    /// Notes the outcome of each line, and returns the settings for each cluster.
    pub(super) fn read(mut self) -> Vec<Suggestion> {
        for (place, section) in self.sections.all.iter().enumerate() {
            match section.kind.as_str() {
                "global" => self.global(section),
                "defaults" => self.defaults(place),
                "listen" | "frontend" | "backend" => self.proxy(place),
                _ => self.set_aside(
                    section,
                    NotNeeded(format!(
                        "{}: this section does not affect members of Patroni",
                        section.kind
                    )),
                ),
            }
        }
        let shared = self.shared.into_iter().map(|(flag, value, _)| (flag, value));
        self.routes.suggestions(&shared.collect::<Vec<_>>())
    }

    /// Adds an outcome. Words of one line with the same reason share it.
    fn note(&mut self, at: usize, outcome: Outcome) {
        let outcomes = &mut self.lines[at].outcomes;
        match outcomes.last_mut().and_then(|last| last.and(&outcome)) {
            Some(both) => *outcomes.last_mut().expect("there is a last one") = both,
            None => outcomes.push(outcome),
        }
    }

    fn note_parts(&mut self, at: usize, parts: Vec<Part>) {
        for part in parts {
            match part {
                Part::Outcome(outcome) => self.note(at, outcome),
                Part::Offer(settings) => self.offer(at, settings),
            }
        }
    }

    /// Adds settings that all routes share. The first value of a setting is kept.
    fn offer(&mut self, at: usize, settings: Vec<(&'static str, String)>) {
        let text = |(flag, value): &(&str, String)| format!("--{flag} {value}");
        let written = settings.iter().map(text).collect::<Vec<_>>().join(" ");
        if let Some(problem) = problem_of(&settings) {
            return self.note(at, NoEquivalent(format!("{written}: {problem}")));
        }
        let (flag, value) = &settings[0];
        match self.shared.iter().find(|(other, ..)| other == flag) {
            Some((_, other, first)) if other != value => {
                let first = self.lines[*first].number;
                self.note(
                    at,
                    NoEquivalent(format!(
                        "all routes share --{flag}, which has the value of line {first}"
                    )),
                );
            }
            Some(_) => self.note(at, Setting(written)),
            None => {
                let all = settings.into_iter().map(|(flag, value)| (flag, value, at));
                self.shared.extend(all);
                self.note(at, Setting(written));
            }
        }
    }

    /// Marks a section as not imported: `outcome` for its header, "not needed" for its lines.
    fn set_aside(&mut self, section: &Section, outcome: Outcome) {
        self.note(section.at, outcome);
        for directive in &section.directives {
            self.note(
                directive.at,
                NotNeeded("this line: it is part of a section that is not imported".to_owned()),
            );
        }
    }

    fn global(&mut self, section: &Section) {
        for Directive { at, words } in &section.directives {
            let value = || words.get(1).cloned().unwrap_or_default();
            match words[0].as_str() {
                "maxconn" => self.offer(*at, vec![("max-sessions", value())]),
                "nbthread" => self.offer(*at, vec![("workers", value())]),
                "hard-stop-after" => self.offer(*at, vec![("drain", server::duration(&value()))]),
                word if word.starts_with("tune.") => {
                    self.note(
                        *at,
                        NotNeeded(format!(
                            "{word}: pgnorth sizes its buffers itself; see --socket-buffers"
                        )),
                    );
                }
                word => {
                    let outcome = words::directive(GLOBAL, word).of(word);
                    self.note(*at, outcome);
                }
            }
        }
    }

    fn defaults(&mut self, place: usize) {
        for directive in &self.sections.all[place].directives {
            match directive.words[0].as_str() {
                "default-server" => {
                    let parts = Options::default().read(&directive.words[1..], self.sections.facts(place, None));
                    self.note_parts(directive.at, parts);
                }
                "option" if directive.words.get(1).is_some_and(|word| word == "httpchk") => {
                    self.note(
                        directive.at,
                        Setting("the kind of route, in each section below".to_owned()),
                    );
                }
                _ => self.common(directive, None),
            }
        }
    }

    /// Reads a `listen`, `frontend` or `backend`.
    fn proxy(&mut self, place: usize) {
        let section = &self.sections.all[place];
        if self.sections.last(place, "mode") == Some("http") {
            return self.http(place);
        }
        let Some(target) = self.sections.target(place) else {
            let why = "neither `default_backend` nor a `use_backend` without a condition names a section";
            return self.set_aside(
                section,
                NoEquivalent(format!("{}: {why}; keep HAProxy for it", section.kind)),
            );
        };
        let backend = self.sections.backend(target);
        if let Some(why) = backend.stays() {
            return self.set_aside(
                section,
                NoEquivalent(format!("{}: {why}; keep HAProxy for it", section.kind)),
            );
        }
        let is_used =
            |other: &usize| self.sections.all[*other].kind == "frontend" && self.sections.target(*other) == Some(place);
        if section.kind == "backend" && !(0..self.sections.all.len()).any(|other| is_used(&other)) {
            return self.set_aside(
                section,
                NoEquivalent("backend: no `frontend` leads here without a condition".to_owned()),
            );
        }
        if section.kind != "frontend" && !backend.ends_sessions {
            let why = "without `on-marked-down shutdown-sessions`, HAProxy keeps sessions to a former primary, or to a server \
                       that is no longer a replica; pgnorth ends them";
            self.note(section.at, NoEquivalent(format!("{}: {why}", section.kind)));
        }
        for directive in &section.directives {
            self.directive(place, directive, &backend);
        }
    }

    /// Reads a section in HTTP mode: HAProxy's statistics, or something else.
    fn http(&mut self, place: usize) {
        let section = &self.sections.all[place];
        let shows_statistics = |directive: &Directive| {
            let words = &directive.words;
            words[0] == "stats" || words.iter().any(|word| word == "prometheus-exporter")
        };
        if !section.directives.iter().any(shows_statistics) {
            let why = "pgnorth forwards only PostgreSQL; keep HAProxy for it";
            return self.set_aside(section, NoEquivalent(format!("{}: {why}", section.kind)));
        }
        for Directive { at, words } in &section.directives {
            match words[0].as_str() {
                "bind" => match words.get(1).map_or("", String::as_str).split(',').next().map(listener) {
                    Some(Ok(address)) => self.offer(*at, vec![("admin", address.to_string())]),
                    _ => self.note(
                        *at,
                        NoEquivalent("bind: --admin accepts one IP address and a port".to_owned()),
                    ),
                },
                word if words.iter().any(|word| word == "auth" || word.contains("http_auth")) => {
                    let why = "the admin port has no password; keep it inside your network";
                    self.note(*at, NoEquivalent(format!("{word}: {why}")));
                }
                word => {
                    let why = "the admin port serves the status page, /metrics and /status";
                    self.note(*at, NotNeeded(format!("{word}: {why}")));
                }
            }
        }
    }

    /// Notes the outcome of a line of a section that becomes a route.
    fn directive(&mut self, place: usize, directive: &Directive, backend: &Backend) {
        let Directive { at, words } = directive;
        let check = backend.check.as_ref().ok();
        if *at == backend.path_at {
            let outcomes = check.map(|check| check.outcomes.clone()).unwrap_or_default();
            return outcomes.into_iter().for_each(|outcome| self.note(*at, outcome));
        }
        match words[0].as_str() {
            "bind" => self.bind(directive, backend),
            "server" | "server-template" => self.server(place, directive, backend),
            "default-server" => {
                let parts = Options::default().read(&words[1..], self.sections.facts(place, check));
                self.note_parts(*at, parts);
            }
            _ => self.common(directive, check),
        }
    }

    /// Notes the outcome of a line that means the same in `defaults` and in other sections.
    fn common(&mut self, Directive { at, words }: &Directive, check: Option<&Check>) {
        let second = words.get(1).map_or("", String::as_str);
        let value = || words.get(2).cloned().unwrap_or_default();
        let is_for_replicas = check.is_some_and(|check| check.kind.is_for_replicas());
        let outcome = match (words[0].as_str(), second) {
            ("timeout", "connect") => return self.offer(*at, vec![("connect-timeout", server::duration(&value()))]),
            ("source", address) => return self.note_parts(*at, vec![server::source(address)]),
            ("option", "httpchk") => NotNeeded("option httpchk: the path is on another line".to_owned()),
            ("http-check", "expect" | "send" | "connect") => NotNeeded(format!(
                "http-check {second}: pgnorth reads the whole answer of the REST API"
            )),
            ("default_backend", _) => NotNeeded(format!(
                "{}: a route consists of its listener and its members",
                words[0]
            )),
            ("use_backend", _) if words.len() == 2 => {
                NotNeeded("use_backend: a route consists of its listener and its members".to_owned())
            }
            ("use_backend", _) => NoEquivalent(
                "use_backend: only the listener determines the route; give each backend its own `bind`".to_owned(),
            ),
            ("balance", _) if !is_for_replicas => NotNeeded("balance: one member at a time is the primary".to_owned()),
            ("balance", "roundrobin" | "leastconn" | "random") => NotNeeded(
                "balance: the member with the fewest sessions gets the client; members with equally many take turns"
                    .to_owned(),
            ),
            ("balance", other) => NoEquivalent(format!(
                "balance {other}: the member with the fewest sessions gets the client; members with equally many take turns"
            )),
            ("stick-table" | "stick", _) if !is_for_replicas => {
                NotNeeded(format!("{}: one member at a time is the primary", words[0]))
            }
            ("stick-table" | "stick", _) => NoEquivalent(format!(
                "{}: a client's next session may go to another replica",
                words[0]
            )),
            ("no", _) => NotNeeded(format!("no {second}: it switches an option off")),
            ("option" | "timeout" | "http-check", _) => {
                let word = format!("{} {second}", words[0]);
                words::directive(PROXY, &word).of(&word)
            }
            (word, _) => words::directive(PROXY, word).of(word),
        };
        self.note(*at, outcome);
    }

    fn server(&mut self, place: usize, Directive { at, words }: &Directive, backend: &Backend) {
        let Some(server) = backend.servers.iter().find(|server| server.at == *at) else {
            return self.note(*at, NoEquivalent(format!("{}: it has no address", words[0])));
        };
        self.note(
            *at,
            match &server.url {
                Ok(url) => Setting(format!("--patroni {url}")),
                Err(problem) => NoEquivalent(format!("{}: {problem}", words[0])),
            },
        );
        let port = server.address.as_ref().ok().and_then(|address| address.port.as_deref());
        if let Some(port) = port.filter(|port| *port != POSTGRES && backend.pooler() != Some(port)) {
            self.note(*at, NoEquivalent(format!(
                "port {port}: PostgreSQL's port comes from Patroni; if poolers listen at {port}, add target={port} to the \
                 route"
            )));
        }
        let skipped = if words[0] == "server" { 3 } else { 4 };
        let parts = backend.defaults.clone().read(
            &words[skipped..],
            self.sections.facts(place, backend.check.as_ref().ok()),
        );
        self.note_parts(*at, parts);
    }

    fn bind(&mut self, Directive { at, words }: &Directive, backend: &Backend) {
        for address in words.get(1).map_or("", String::as_str).split(',') {
            match listener(address) {
                Ok(listen) => {
                    let outcome = self.routes.add(*at, listen, backend, self.lines);
                    self.note(*at, outcome);
                }
                Err(problem) => self.note(*at, NoEquivalent(format!("bind {address}: {problem}"))),
            }
        }
        let mut words = words.iter().skip(2);
        while let Some(word) = words.next() {
            if word == "tcp-ut" {
                let value = words.next().cloned().unwrap_or_default();
                self.offer(*at, vec![("client-tcp-user-timeout", server::duration(&value))]);
                continue;
            }
            let (values, meaning) = words::option(BIND, word).unwrap_or((0, words::UNKNOWN));
            let _values: Vec<_> = words.by_ref().take(values).collect();
            self.note(*at, meaning.of(word));
        }
    }
}
