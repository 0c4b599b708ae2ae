//! Patroni's configuration file of one member.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::dns;
use super::kubernetes::NAMESPACE;
use super::patroni::{POSTGRES_PORT, REST_PORT};
use super::psql::PASSWORD;
use super::rig::{Dcs, Rig, SCOPE, Settings, name};
use super::tls::Tls;

/// Returns the configuration of the member number `index`, in the files' `folder`. `etcd` has the addresses of etcd, if
/// that is the DCS.
pub fn member(index: u8, rig: &Rig, folder: &Path, etcd: &[String], settings: &Settings) -> Value {
    let (address, tls) = (rig.network().host(index), rig.tls());
    let (dcs, dcs_config) = match rig.dcs() {
        Dcs::Etcd if settings.etcd_tls => {
            let mut etcd = json!({"hosts": etcd, "protocol": "https"});
            etcd["cacert"] = json!(tls.authority);
            etcd["cert"] = json!(tls.certificate);
            etcd["key"] = json!(tls.postgres_key);
            ("etcd3", etcd)
        }
        Dcs::Etcd => ("etcd3", json!({"hosts": etcd})),
        Dcs::Endpoints => ("kubernetes", kubernetes(address, true)),
        Dcs::ConfigMaps => ("kubernetes", kubernetes(address, false)),
    };
    let rest = format!("{address}:{REST_PORT}");
    let mut restapi = json!({"listen": rest, "connect_address": rest});
    if settings.rest_tls {
        restapi["certfile"] = json!(tls.certificate);
        restapi["keyfile"] = json!(tls.postgres_key);
    }
    json!({
        "scope": SCOPE,
        "name": name(index),
        "restapi": restapi,
        dcs: dcs_config,
        "bootstrap": {
            "dcs": dynamic(settings),
            // With auth-host, PostgreSQL 13 stores the first password as pg_hba.conf demands it.
            "initdb": [
                {"encoding": "UTF8"}, {"locale": "C"}, {"auth-host": "scram-sha-256"}, "data-checksums", "no-sync",
            ],
        },
        "postgresql": postgresql(&name(index), address, folder, tls, settings),
    })
}

fn kubernetes(address: Ipv4Addr, use_endpoints: bool) -> Value {
    json!({
        "namespace": NAMESPACE,
        "labels": {"application": "patroni"},
        "scope_label": "cluster-name",
        "context": "patroni",
        "use_endpoints": use_endpoints,
        "pod_ip": address,
        "ports": [{"name": "postgresql", "port": POSTGRES_PORT}],
    })
}

/// Returns the dynamic configuration: the shortest times that Patroni allows, so that failovers are quick.
fn dynamic(settings: &Settings) -> Value {
    let mut dynamic = json!({
        "ttl": 20,
        "loop_wait": 3,
        "retry_timeout": 5,
        "failsafe_mode": settings.failsafe,
        "synchronous_mode": settings.synchronous,
        "postgresql": {"use_pg_rewind": true, "use_slots": true},
    });
    for (key, value) in settings.dynamic.as_object().into_iter().flatten() {
        dynamic[key] = value.clone();
    }
    dynamic
}

fn postgresql(name: &str, address: Ipv4Addr, folder: &Path, tls: &Tls, settings: &Settings) -> Value {
    let mut listen = format!("{address}:{POSTGRES_PORT}");
    let mut connect_address = listen.clone();
    if settings.names {
        connect_address = format!("{}:{POSTGRES_PORT}", dns::name_of(name));
        // A pod's address may change while its name stays.
        listen = format!("0.0.0.0:{POSTGRES_PORT}");
    }
    let login = json!({"username": "postgres", "password": PASSWORD});
    let proxy_address = settings.pooler_port.map(|port| format!("{address}:{port}"));
    json!({
        "proxy_address": proxy_address,
        "listen": listen,
        "connect_address": connect_address,
        "bin_dir": programs(),
        "data_dir": folder.join("data"),
        "authentication": {"superuser": login, "replication": login, "rewind": login},
        "basebackup": [{"checkpoint": "fast"}, "no-sync"],
        "pg_hba": [
            "local all all trust",
            format!("host all all {address}/16 scram-sha-256"),
            // Patroni itself connects here; PostgreSQL listens on every address.
            "host all all 127.0.0.1/32 scram-sha-256".to_owned(),
            format!("host replication all {address}/16 scram-sha-256"),
        ],
        "parameters": {
            "unix_socket_directories": folder,
            "password_encryption": "scram-sha-256",
            "ssl": "on",
            "ssl_cert_file": tls.certificate,
            "ssl_key_file": tls.postgres_key,
            "max_connections": 300,
            "shared_buffers": "32MB",
            "min_wal_size": "32MB",
            "max_wal_size": "128MB",
            "wal_keep_size": "32MB",
            // A new replica finds no slot yet and would sleep for 5 seconds before it asks again.
            "wal_retrieve_retry_interval": "200ms",
        },
    })
}

/// Returns the folder of PostgreSQL's programs: PGNORTH_POSTGRESQL, or of the newest version among Debian's packages.
fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("PGNORTH_POSTGRESQL") {
        return folder.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let versions = versions.filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse::<u32>().ok());
    let newest = versions.max().expect("a version of PostgreSQL is installed");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}
