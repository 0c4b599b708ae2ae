//! From one value's text to its type. Each says what is wrong as a phrase that never repeats the value: it might hold a password.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use url::Url;

use super::Format;

/// Directives for [`EnvFilter`], known to be valid.
///
/// A bare level is meant for pgnorth's own modules; other crates are kept to warnings unless a directive names them. kube's are silent: while the API is
/// down they repeat every failed try, which pgnorth tells once, in its own words.
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
                // EnvFilter would take a misspelt level for a module, and fall silent.
                return Err(format!(
                    "{directive:?} is no level; there are error, warn, info, debug, trace and off, and module=level"
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

    /// The directives in force, the quieter level of other crates included.
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
            "a port alone; put an address before it, such as [::] for every address".to_owned()
        } else {
            "not an IP address and a port; a host name can't be listened on, and IPv6 stands in brackets".to_owned()
        }
    })
}

/// Whether both can't be bound at once.
pub(super) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    overlap && one.port() == other.port() && one.port() != 0
}

/// A duration within bounds, both included.
pub(super) fn duration(least: Duration, most: Duration) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        if text.parse::<f64>().is_ok_and(f64::is_finite) && !text.starts_with(['-', '+']) {
            return Err(format!("a number needs its unit: write {text}s for seconds"));
        }
        let duration = humantime::parse_duration(text)
            .map_err(|_| "not a duration; write numbers with units: ms, s, m, h".to_owned())?;
        let human = humantime::format_duration;
        if duration < least {
            return Err(format!("too short; the least is {}", human(least)));
        }
        if duration > most {
            return Err(format!("too long; the most is {}", human(most)));
        }
        Ok(duration)
    }
}

/// A size of 1 MiB to 64 GiB, or 0.
pub(super) fn size(text: &str) -> Result<usize, String> {
    const LEAST: usize = 1 << 20;
    const MOST: usize = 64 << 30;
    if text == "0" {
        return Ok(0);
    }
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let size = units.iter().find_map(|(unit, shift)| {
        let count: usize = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(1 << shift)
    });
    match size {
        Some(size) if (LEAST..=MOST).contains(&size) => Ok(size),
        Some(_) => Err("out of bounds; 1MiB to 64GiB, or 0 for the system's".to_owned()),
        None => {
            Err("not a size; write a whole number with its unit, KiB, MiB or GiB, or 0 for the system's".to_owned())
        }
    }
}

/// One IP address or more.
pub(super) fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let addresses = text.split(',').map(|address| match address.trim().parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Err(()),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => Err(()),
        address => address.map_err(drop),
    });
    addresses
        .collect::<Result<_, ()>>()
        .map_err(|()| "not a list of IP addresses of this host, with commas between them".to_owned())
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

/// A whole number from 1 to `most`.
pub(super) fn count(most: usize) -> impl Fn(&str) -> Result<usize, String> {
    move |text| match text.parse() {
        Ok(count) if (1..=most).contains(&count) => Ok(count),
        _ => Err(format!("not a whole number from 1 to {most}, in digits alone")),
    }
}

/// The name of a Kubernetes object: Patroni names its objects after the scope.
pub(super) fn scope(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err(
        "can't name Kubernetes objects; only a-z, 0-9, - and . may be used, with a letter or digit first and last"
            .to_owned(),
    )
}

/// Any text: outside Kubernetes a scope is only compared.
pub(super) fn any_scope(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("names no scope".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn group(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "not a group's number, in digits alone; 0 is the coordinator".to_owned())
}

/// Kubernetes' are UUIDs; a static pod's is a hash.
pub(super) fn uid(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err("no uid; only letters, digits and - are in one, at most 64".to_owned())
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    if is_label(text) {
        return Ok(text.to_owned());
    }
    Err(
        "not a namespace; only a-z, 0-9 and - may be used, at most 63, with a letter or digit first and last"
            .to_owned(),
    )
}

/// The name of a Service: RFC 1035's label.
pub(super) fn service(text: &str) -> Result<String, String> {
    if is_label(text) && text.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Ok(text.to_owned());
    }
    Err("can't name a Service; only a-z, 0-9 and - may be used, at most 63, with a letter first and a letter or digit last".to_owned())
}

/// RFC 1123's label, in lower case, as Kubernetes wants it.
fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| plain(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Checks only the characters and that no part is empty: the API server knows the grammar, and says what is wrong with it.
pub(super) fn selector(text: &str) -> Result<String, String> {
    let usual = |letter: char| letter.is_ascii_alphanumeric() || "._-/=!,() ".contains(letter);
    if text.chars().all(usual) && text.split(',').all(|part| !part.trim().is_empty()) {
        return Ok(text.to_owned());
    }
    Err("not a label selector; write label=value, several separated by commas".to_owned())
}

/// Patroni takes almost any name: pgnorth knows which there are.
pub(super) fn member(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("names no member; leave it out to mean all of them".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("names no file".to_owned());
    }
    Ok(text.into())
}

/// Host names alone: a port or a scheme would never match a request's.
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
                Err("a host name has letters, digits, - and dots alone; leave scheme, port and path out".to_owned())
            }
        })
        .collect()
}

pub(super) fn urls(text: &str) -> Result<Vec<Url>, String> {
    let entries: Vec<_> = text.split(',').map(str::trim).collect();
    let mut urls = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let url = url(entry).map_err(|problem| match entries.len() {
            1 => problem,
            count => format!("entry {} of {count}: {problem}", index + 1),
        })?;
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    Ok(urls)
}

fn url(text: &str) -> Result<Url, String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if !text.contains("://") {
        return Err("no URL; it starts with http:// or https://".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("no URL: {error}"))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err("only http and https are spoken by Patroni's REST API".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password; reading needs none, and a member that wants to know its client gets --patroni-cert".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("ends in a query or fragment; only the base URL is wanted".to_owned());
    }
    if url.path() != "/" {
        return Err("has a path; only scheme, host and port are wanted".to_owned());
    }
    Ok(url)
}
