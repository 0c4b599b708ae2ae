//! HAProxy's configurations: one listener for the primary, checks by Patroni's REST API, PostgreSQL itself behind it.
//! They differ in the options that decide when a member counts as the primary, and what becomes of its sessions.

use std::net::{Ipv4Addr, SocketAddr};

use super::Contender;
use crate::support::Member;

/// The differing options.
struct Options {
    /// Of the section `defaults`.
    defaults: &'static str,
    /// Of the section `listen`.
    listener: &'static str,
    /// Of `default-server`.
    servers: &'static str,
}

/// Patroni's own: `extras/confd/templates/haproxy.tmpl`.
const TEMPLATE: Options = Options {
    defaults: "retries 2\n timeout connect 4s\n timeout client 30m\n timeout server 30m\n timeout check 5s",
    listener: "option httpchk OPTIONS /primary",
    servers: "inter 3s fall 3 rise 2 on-marked-down shutdown-sessions",
};

/// The template's, but one failed check is enough, and none takes longer than the interval.
const TUNED: Options = Options {
    defaults: "retries 2\n timeout connect 4s\n timeout client 30m\n timeout server 30m\n option splice-auto",
    listener: "option httpchk OPTIONS /primary",
    servers: "inter 500ms fall 1 rise 1 on-marked-down shutdown-sessions",
};

/// autobase's `haproxy.cfg.j2`, its listener `master`, which checks without TLS here, as Patroni's REST API has none.
const AUTOBASE: Options = Options {
    defaults: "retries 2\n timeout queue 5s\n timeout connect 5s\n timeout client 60m\n timeout server 60m\n \
               timeout check 15s",
    listener: "maxconn 10000\n option httpchk OPTIONS /primary",
    servers: "inter 3s fastinter 1s fall 3 rise 4 on-marked-down shutdown-sessions",
};

/// Pigsty's service `primary`.
const PIGSTY: Options = Options {
    defaults: "retries 3\n timeout queue 3s\n timeout connect 3s\n timeout client 24h\n timeout server 24h\n \
               timeout check 3s",
    listener: "maxconn 5000\n balance roundrobin\n option httpchk\n option http-keep-alive\n \
               http-check send meth OPTIONS uri /primary",
    servers: "inter 3s fastinter 1s downinter 5s rise 3 fall 3 on-marked-down shutdown-sessions slowstart 30s \
              maxconn 3000 maxqueue 128 weight 100",
};

pub fn address(contender: Contender) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 5001 + contender as u16).into()
}

/// Returns the configuration of a contender.
pub fn render(contender: Contender, members: &[Member]) -> String {
    let options = match contender {
        Contender::HaproxyTuned => TUNED,
        Contender::HaproxyAutobase => AUTOBASE,
        Contender::HaproxyPigsty => PIGSTY,
        _ => TEMPLATE,
    };
    let servers: String = members
        .iter()
        .map(|member| format!(" server {} {} check port 8008\n", member.name(), member.address()))
        .collect();
    format!(
        "global\n maxconn 2000\n log stdout format raw local0 notice\n\
         defaults\n log global\n mode tcp\n {}\n\
         listen primary\n bind {}\n {}\n http-check expect status 200\n default-server {}\n{servers}",
        options.defaults,
        address(contender),
        options.listener,
        options.servers,
    )
}
