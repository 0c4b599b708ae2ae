//! The configurations of the contenders: their defaults, except for what makes them comparable (two threads, enough
//! sessions, no checks and no logs).

use std::net::SocketAddr;
use std::path::Path;

use super::Target;

/// Path of nginx' stream module on Debian; elsewhere it may be built in.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Returns HAProxy's configuration. Without maxconn it takes as many sessions as it may open files for.
pub fn haproxy(listen: SocketAddr, target: Target, splice: bool) -> String {
    let splice = match splice {
        true => "option splice-request\n    option splice-response\n    ",
        false => "",
    };
    format!(
        "global\n    nbthread 2\n\
         defaults\n    mode tcp\n    {splice}timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
         listen bench\n    bind {listen}\n    server backend {}\n",
        target.address
    )
}

pub fn nginx(listen: SocketAddr, target: Target, pid: &Path) -> String {
    let module = match Path::new(STREAM_MODULE).exists() {
        true => format!("load_module {STREAM_MODULE};\n"),
        false => String::new(),
    };
    format!(
        "{module}daemon off;\nworker_processes 2;\npid {};\nerror_log stderr error;\n\
         events {{ worker_connections 32768; }}\n\
         stream {{ server {{ listen {listen}; proxy_pass {}; proxy_timeout 1h; }} }}\n",
        pid.display(),
        target.address
    )
}

/// Returns PgBouncer's configuration. With `auth_type = any` clients need no password, and all are the user in it.
pub fn pgbouncer(listen: SocketAddr, target: Target) -> String {
    let (user, database) = target.login;
    format!(
        "[databases]\n{database} = host={} port={} user={user}\n\
         [pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = session\n\
         max_client_conn = 1000\ndefault_pool_size = 200\nignore_startup_parameters = extra_float_digits\n\
         log_connections = 0\nlog_disconnections = 0\n",
        target.address.ip(),
        target.address.port(),
        listen.ip(),
        listen.port()
    )
}

/// Returns nftables' rules. Connections from this machine pass only the hook `output`.
pub fn redirect(listen: SocketAddr, target: Target) -> String {
    format!(
        "table ip bench {{\n chain output {{\n  type nat hook output priority -100;\n  \
         ip daddr {} tcp dport {} redirect to :{}\n }}\n}}\n",
        listen.ip(),
        listen.port(),
        target.address.port()
    )
}
