//! The host names that a request may have (pure). A foreign web page can point its own name at the admin port (DNS
//! rebinding), and the browser then lets that page read the answers. The request still has the page's host name, which
//! identifies it.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Suffixes that cannot be registered in the public DNS: reserved ones (RFC 6761, 6762, 8375, ICANN's `.internal`),
/// and those of Kubernetes.
const PRIVATE: [&str; 6] = ["localhost", "local", "internal", "home.arpa", "svc", "cluster.local"];

/// The allowed host names in addition to IP addresses, names without a dot, and names that cannot be public.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Allows these names, and `machine`, the name of the host that pgnorth runs on.
    pub fn new(names: &[String], machine: Option<&str>) -> Self {
        let all = names.iter().map(String::as_str).chain(machine);
        Self(all.map(str::to_ascii_lowercase).collect())
    }

    /// Returns true if a request with this `Host`, which may include a port, is meant for this pgnorth. A request
    /// without a host is accepted, because every browser sends a host.
    pub(super) fn knows(&self, host: &str) -> bool {
        let name = without_port(host);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let below = |end: &str| name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'));
        !name.contains('.') && !name.contains(':')
            || is_address(&name)
            || PRIVATE.into_iter().any(below)
            || self.0.contains(&name)
    }
}

/// Returns the name without its port, as in `--admin-host`.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn is_address(name: &str) -> bool {
    let v6 = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    // A zone (`[fe80::1%eth0]`) matters only to the client.
    let v6 = v6.map(|inside| inside.split('%').next().unwrap_or(inside));
    name.parse::<Ipv4Addr>().is_ok() || v6.is_some_and(|inside| inside.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_names_without_a_dot_and_names_that_cannot_be_public_are_known() {
        let hosts = Hosts::new(&["PG.example.com".to_owned()], Some("db1.example.net"));
        for host in [
            "",
            "10.0.0.7",
            "10.0.0.7:8080",
            "[::1]:8080",
            "[fd00::7]",
            "[fe80::1%eth0]:8080",
            "localhost:8080",
            "pgnorth",
            "pgnorth:8080",
            "pgnorth.databases.svc",
            "pgnorth.databases.svc:8080",
            "PGNORTH.databases.svc.Cluster.Local.",
            "10-0-0-7.databases.pod.cluster.local",
            "ip-10-0-0-7.eu-west-1.compute.internal:8080",
            "pgnorth.localhost",
            "db1.local",
            "pg.example.com:443",
            "db1.EXAMPLE.net",
        ] {
            assert!(hosts.knows(host), "{host}");
        }
    }

    #[test]
    fn names_that_can_be_public_are_refused() {
        let hosts = Hosts::new(&["pg.example.com".to_owned()], None);
        for host in [
            "evil.example",
            "evil.example:8080",
            "x.pg.example.com",
            "pg.example.com.evil.example",
            "evillocalhost.com",
            "notcluster.local.evil.example",
            "mysvc.example",
            "10.0.0.7.evil.example",
            "10.0.0.7.nip.io:8080",
            "::1",
            "[evil.example]",
            "1.2.3.4.5",
        ] {
            assert!(!hosts.knows(host), "{host}");
        }
    }
}
