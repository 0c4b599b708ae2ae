//! The rows of the listeners: routes, the admin port, operator commands.

use super::{ADDRESS, FILE, LISTENING, ROW, Setting, Unset, Values};

pub(in crate::config) const LISTEN: Setting = Setting {
    flag: "listen",
    group: LISTENING,
    values: ADDRESS,
    help: "IP address and port for PostgreSQL clients; [::] accepts IPv4 too",
    more: "Short for --route ADDRESS=primary. The default does not apply if --route or --ports has a route to the primary.",
    unset: Unset::Value("[::]:5432"),
    example: "[::]:5432",
    ..ROW
};

pub(in crate::config) const ROUTE: Setting = Setting {
    flag: "route",
    group: LISTENING,
    values: Values::Text("ROUTE", "ADDRESS=ROUTE[,KEY=VALUE]"),
    help: "Additional listener, and the kind of members that its clients reach, such as replica; repeatable",
    more: "ADDRESS is an IP address and a port. ROUTE is primary, replica, read-only, sync, async, quorum, leader or standby-leader. Keys: max-lag=16MB, lagging=cut, streaming, tag.NAME=VALUE, prefer.NAME=VALUE, fallback=primary, hold=5s, target=6432. In the variable, routes are separated by semicolons.",
    see: "concepts/routes.md",
    repeats: true,
    example: "[::]:5001=replica",
    ..ROW
};

pub(in crate::config) const PORTS_PRESET: Setting = Setting {
    flag: "ports",
    group: LISTENING,
    values: Values::Text("PRESET", "patroni or autobase"),
    help: "The ports and routes of a well-known HAProxy template: patroni or autobase",
    more: "patroni: 5000 primary, 5001 replica. autobase: these, 5002 sync and 5003 async, with max-lag=100MB for 5001 and 5003.",
    see: "concepts/routes.md",
    example: "patroni",
    ..ROW
};

pub(in crate::config) const PROXY_PROTOCOL_FROM: Setting = Setting {
    flag: "proxy-protocol-from",
    group: LISTENING,
    values: Values::Text("NETWORKS", "networks or IP addresses, comma-separated"),
    help: "Networks of load balancers that send a PROXY protocol header, comma-separated",
    more: "Versions 1 and 2. The log then shows the client's own address. A connection from these networks without a \
           header is closed; a header from elsewhere is rejected.",
    see: "operating/several.md#the-clients-own-address",
    unset: Unset::Nothing,
    example: "10.0.0.5,10.0.1.0/24",
    ..ROW
};

pub(in crate::config) const ADMIN: Setting = Setting {
    flag: "admin",
    group: LISTENING,
    values: ADDRESS,
    help: "IP address and port for probes, metrics and status over HTTP",
    more: "Only operator commands need a token: keep the port inside your network.",
    see: "reference/admin-port.md",
    unset: Unset::Value("[::]:8080"),
    example: "[::]:8080",
    ..ROW
};

pub(in crate::config) const ADMIN_TOKEN_FILE: Setting = Setting {
    flag: "admin-token-file",
    group: LISTENING,
    values: FILE,
    help: "File with the token that the operator commands hold, release and cut require",
    more: "pgnorth reads it at each command. Without it, no operator command is accepted.",
    see: "operating/maintenance.md",
    example: "/etc/pgnorth/admin/token",
    ..ROW
};

pub(in crate::config) const ADMIN_HOST: Setting = Setting {
    flag: "admin-host",
    group: LISTENING,
    values: Values::Text("NAMES", "host names, comma-separated"),
    help: "Public host names of the admin port, comma-separated",
    more: "Requests for other public host names are rejected with 421, except for /livez and /readyz. IP addresses and \
           private names are always accepted.",
    see: "reference/admin-port.md#host-names",
    example: "pgnorth.example.com",
    ..ROW
};
