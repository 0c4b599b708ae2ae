//! Parses one value's text to its type. An error is a phrase that never repeats the value: it might contain a password.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use url::Url;

use super::values::Values;
use super::{Format, HaproxyStatistics};
use crate::route::Upstream;

/// Directives for [`EnvFilter`], known to be valid.
///
/// A bare level applies to pgnorth's own modules; other crates log only warnings and errors, unless a directive names
/// them. kube's modules are off, because they would log every failed attempt while the API is down; pgnorth itself logs
/// such an outage once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut level = LevelFilter::INFO;
        let mut named = String::new();
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            if let Ok(bare) = directive.parse() {
                level = bare;
            } else if !directive.contains(['=', '[']) {
                // EnvFilter would treat a misspelt level as a module's name, and log nothing.
                return Err(format!(
                    "{directive:?} is not a level; valid values are off, error, warn, info, debug, trace and module=level"
                ));
            } else {
                EnvFilter::try_new(directive)
                    .map_err(|_| format!("{directive:?} is not a directive; write module=level"))?;
                named = format!("{named},{directive}");
            }
        }
        let others = level.min(LevelFilter::WARN);
        Ok(Self(format!(
            "{others},kube_client=off,kube_runtime=off,pgnorth={level}{named}"
        )))
    }

    /// Returns the directives in force, including the level of other crates.
    pub fn directives(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

pub(super) fn format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("must be text or json".to_owned()),
    }
}

pub(super) fn listener(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        if text.strip_prefix(':').unwrap_or(text).parse::<u16>().is_ok() {
            "a port without an address; write [::]:PORT to listen on every address".to_owned()
        } else {
            "not an IP address and a port; host names are not accepted, and IPv6 addresses need brackets".to_owned()
        }
    })
}

/// Returns true if the two addresses cannot be bound at the same time.
pub(super) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    overlap && one.port() == other.port() && one.port() != 0
}

/// Returns a parser of durations within bounds, both included.
pub(super) fn duration(least: Duration, most: Duration) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        if text.parse::<f64>().is_ok_and(f64::is_finite) && !text.starts_with(['-', '+']) {
            return Err(format!("a duration needs a unit: write {text}s for seconds"));
        }
        let duration = humantime::parse_duration(text)
            .map_err(|_| "not a duration; write numbers with units: ms, s, m, h".to_owned())?;
        if duration < least {
            return Err(format!("too short; the minimum is {}", human(least)));
        }
        if duration > most {
            return Err(format!("too long; the maximum is {}", human(most)));
        }
        Ok(duration)
    }
}

/// Formats a duration so that it can be parsed again. A whole number of hours is written in hours.
pub(super) fn human(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds > 0 && seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// Returns a parser of sizes within bounds, both included, that also accepts 0.
pub(super) fn size(least: usize, most: usize) -> impl Fn(&str) -> Result<usize, String> {
    move |text| {
        if text == "0" {
            return Ok(0);
        }
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
        let size = units.iter().find_map(|(unit, shift)| {
            let count: usize = text.strip_suffix(unit)?.parse().ok()?;
            count.checked_mul(1 << shift)
        });
        match size {
            Some(size) if (least..=most).contains(&size) => Ok(size),
            Some(_) => Err(format!("out of bounds: {}", Values::Size(least, most))),
            None => Err("not a size; write a whole number with the unit KiB, MiB or GiB, or 0".to_owned()),
        }
    }
}

/// Parses a list of at least one IP address.
pub(super) fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let addresses = text.split(',').map(|address| match address.trim().parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Err(()),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => Err(()),
        address => address.map_err(drop),
    });
    addresses
        .collect::<Result<_, ()>>()
        .map_err(|()| "not a comma-separated list of IP addresses of this host".to_owned())
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

/// Returns a parser of whole numbers from 1 to `most`.
pub(super) fn count(most: usize) -> impl Fn(&str) -> Result<usize, String> {
    move |text| match text.parse() {
        Ok(count) if (1..=most).contains(&count) => Ok(count),
        _ => Err(format!("not a whole number from 1 to {most}; write digits only")),
    }
}

/// Parses the name of a Kubernetes object: Patroni names its objects after the scope.
pub(super) fn scope(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err(
        "not a name of a Kubernetes object; use a-z, 0-9, - and . only, with a letter or digit first and last"
            .to_owned(),
    )
}

pub(super) fn upstream(text: &str) -> Result<Upstream, String> {
    match (text, text.parse()) {
        ("postgres", _) => Ok(Upstream::Postgres),
        ("proxy", _) => Ok(Upstream::Proxy),
        (_, Ok(port)) if port != 0 => Ok(Upstream::Port(port)),
        _ => Err("neither postgres, nor proxy, nor a port".to_owned()),
    }
}

/// Accepts any text that is not empty.
pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("empty; give a name".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn group(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "not a group number; write digits only, 0 for the coordinator".to_owned())
}

/// Parses a pod's uid: a UUID, or the hash of a static pod.
pub(super) fn uid(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err("not a uid; use 1 to 64 letters, digits and hyphens".to_owned())
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    if is_label(text) {
        return Ok(text.to_owned());
    }
    Err("not a namespace; use a-z, 0-9 and - only, at most 63, with a letter or digit first and last".to_owned())
}

/// Parses the name of a Service: a label of RFC 1035.
pub(super) fn service(text: &str) -> Result<String, String> {
    if is_label(text) && text.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Ok(text.to_owned());
    }
    Err(
        "not a name of a Service; use a-z, 0-9 and - only, at most 63, with a letter first and a letter or digit last"
            .to_owned(),
    )
}

/// Returns true if this is a label of RFC 1123 in lower case, as Kubernetes requires.
fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| plain(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Checks the characters, and that no part is empty. The API server checks the grammar and explains errors.
pub(super) fn selector(text: &str) -> Result<String, String> {
    let usual = |letter: char| letter.is_ascii_alphanumeric() || "._-/=!,() ".contains(letter);
    if text.chars().all(usual) && text.split(',').all(|part| !part.trim().is_empty()) {
        return Ok(text.to_owned());
    }
    Err("not a label selector; write label=value, separated by commas".to_owned())
}

/// Accepts any name that is not empty. The running pgnorth checks that the member exists.
pub(super) fn member(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("empty; leave the setting out to end all sessions".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("empty; name a file".to_owned());
    }
    Ok(text.into())
}

/// Parses host names. Rejects a name with a port or a scheme, which would never match a request's host.
pub(super) fn hosts(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').map(|name| name.trim().to_ascii_lowercase());
    let label = |label: &str| {
        label.len() <= 63
            && !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    names
        .map(|name| match name.split('.').all(label) && name.len() <= 253 {
            true => Ok(name),
            false => {
                Err("not a host name; use letters, digits, -, _ and dots only, without scheme, port or path".to_owned())
            }
        })
        .collect()
}

pub(super) fn urls(text: &str) -> Result<Vec<Url>, String> {
    url_list(
        text,
        "http or https, the only schemes of Patroni's REST API",
        "reading the REST API needs neither; if members require a client certificate, set --patroni-cert",
    )
}

/// Parses a list of client URLs of etcd.
pub(super) fn etcd_urls(text: &str) -> Result<Vec<Url>, String> {
    url_list(
        text,
        "http or https, the only schemes of etcd's gateway",
        "set --etcd-user and --etcd-password-file instead",
    )
}

/// Parses a part of a key: text without a slash.
pub(super) fn key_part(text: &str) -> Result<String, String> {
    match not_empty(text) {
        Ok(text) if text.contains('/') => Err("contains a slash; give only the scope".to_owned()),
        part => part,
    }
}

/// Parses the beginning of keys, as Patroni writes it: with one leading slash, and without a trailing one.
pub(super) fn key_path(text: &str) -> Result<String, String> {
    let parts: Vec<_> = text.split('/').filter(|part| !part.is_empty()).collect();
    match parts[..] {
        [] => Err("empty; Patroni's default is /service".to_owned()),
        _ => Ok(format!("/{}", parts.join("/"))),
    }
}

/// Parses the location of HAProxy's statistics. Appends `;csv` to a URL that does not end in it.
pub(super) fn haproxy(text: &str) -> Result<HaproxyStatistics, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return file(path).map(HaproxyStatistics::Socket);
    }
    if !text.contains("://") {
        return file(text).map(HaproxyStatistics::File);
    }
    let not_a_url = |error| format!("not a URL: {error}");
    let url = Url::parse(text).map_err(not_a_url)?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err("not http or https; write unix:PATH for a socket".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user or password; use HAProxy's socket, unix:PATH, which needs none".to_owned());
    }
    if url.fragment().is_some() {
        return Err("has a fragment; write the URL of the statistics page".to_owned());
    }
    let url = match url.as_str().ends_with(";csv") {
        true => url,
        false => Url::parse(&format!("{url};csv")).map_err(not_a_url)?,
    };
    Ok(HaproxyStatistics::Http(Box::new(url)))
}

fn url_list(text: &str, schemes: &str, instead: &str) -> Result<Vec<Url>, String> {
    let entries: Vec<_> = text.split(',').map(str::trim).collect();
    let mut urls = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let url = url(entry, schemes, instead).map_err(|problem| match entries.len() {
            1 => problem,
            count => format!("entry {} of {count}: {problem}", index + 1),
        })?;
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    Ok(urls)
}

fn url(text: &str, schemes: &str, instead: &str) -> Result<Url, String> {
    if text.is_empty() {
        return Err("empty".to_owned());
    }
    if !text.contains("://") {
        return Err("not a URL; it must start with http:// or https://".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(format!("not {schemes}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("contains a user or password; {instead}"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("ends in a query or fragment; write the base URL only".to_owned());
    }
    if url.path() != "/" {
        return Err("has a path; write scheme, host and port only".to_owned());
    }
    Ok(url)
}
