//! This host and its way to the API: credentials, clocks, open files.

use crate::doctor::check::Check;
use crate::doctor::facts::{Answer, Api, ApiFailure, Capacity, Renewal};

/// NTP keeps clocks within milliseconds; the Date header has whole seconds.
const SKEW: f64 = 2.0;

pub(super) fn credentials(api: &Api) -> Check {
    let version = match &api.version {
        Ok(version) => format!("version {version}"),
        Err(_) => "it does not tell its version".to_owned(),
    };
    Check::ok(
        "credentials",
        format!("the Kubernetes API answers, {version}; namespace {}", api.namespace),
    )
}

/// The line, and because of what everything else is not checked.
pub(super) fn failure(failure: &ApiFailure) -> (Check, &'static str) {
    let what = "credentials";
    match failure {
        ApiFailure::NoCredentials(why) => (
            Check::fail(
                what,
                why,
                "on a laptop: set KUBECONFIG, and look with kubectl config current-context. In a pod: set serviceAccountName, and let automountServiceAccountToken be true",
            ),
            "there are no Kubernetes credentials",
        ),
        ApiFailure::Unknown(why) => (
            Check::fail(
                what,
                format!("the Kubernetes API does not know them: {why}"),
                "the token or certificate has expired, or belongs to another cluster: log in again, and try kubectl auth whoami",
            ),
            "the Kubernetes API does not know the credentials",
        ),
        ApiFailure::Silent(why) => (
            Check::fail(
                what,
                format!("the Kubernetes API cannot be reached: {why}"),
                "try kubectl version with the same credentials. In a pod, egress to the API server must be allowed (deploy/base/networkpolicy.yaml); on a laptop, think of VPN and proxy",
            ),
            "the Kubernetes API cannot be reached",
        ),
    }
}

/// For information: the lease is counted by the local clock alone, from when a renewal arrives.
pub(super) fn clocks(api: &Api) -> Vec<Check> {
    let holder = match &api.renewal {
        Ok(Renewal::Renewed { ahead: Some(ahead), .. }) => Some(*ahead),
        _ => None,
    };
    let whose = api.holder().map_or_else(|| "the leader".to_owned(), str::to_owned);
    let mut checks = vec![match &api.ahead {
        Ok(ahead) => clock("the Kubernetes API", *ahead),
        Err(why) => Check::not_checked("clock of the Kubernetes API", why),
    }];
    checks.extend(holder.map(|ahead| clock(&whose, ahead)));
    checks
}

fn clock(whose: &str, ahead: f64) -> Check {
    let what = format!("clock of {whose}");
    if ahead.abs() < SKEW {
        return Check::ok(what, "within 2 s of this host's");
    }
    let than = if ahead > 0.0 { "ahead of" } else { "behind" };
    Check::warn(
        what,
        format!(
            "{:.0} s {than} this host's; leases are not counted by it, but certificates, tokens, scheduled switchovers and the times in logs are",
            ahead.abs()
        ),
        "set both clocks by NTP",
    )
}

/// A missing token harms no session, but would be found only when an operator needs a command.
pub(super) fn admin_token(token: &Answer<()>) -> Check {
    let what = "token for operator commands";
    match token {
        Ok(()) => Check::ok(what, "it can be read"),
        Err(problem) => Check::warn(
            what,
            format!("{problem}; operator commands are rejected"),
            "--admin-token-file names a file with one word of 16 characters or more, which this process must be able to read",
        ),
    }
}

pub(super) fn refusal_certificate(certificate: &Answer<()>) -> Check {
    let what = "certificate for refusals";
    match certificate {
        Ok(()) => Check::ok(what, "it can be used"),
        Err(problem) => Check::fail(
            what,
            format!("{problem}; the proxy does not start"),
            "--refusal-cert names a certificate chain in PEM form and --refusal-key its private key; this process must be able to read both",
        ),
    }
}

pub(super) fn open_files(wanted: usize, capacity: Capacity) -> Check {
    let what = "open files and --max-sessions";
    let files = match capacity.files {
        usize::MAX => "no limit of open files".to_owned(),
        files => format!("a hard limit of {files} open files"),
    };
    if capacity.sessions >= wanted {
        Check::ok(what, format!("{files} here; {wanted} sessions fit"))
    } else {
        Check::warn(
            what,
            format!("{files} here has room for {} sessions, not {wanted}", capacity.sessions),
            "where pgnorth runs, raise the hard limit (ulimit -Hn; LimitNOFILE= in systemd; the container runtime's), or lower --max-sessions",
        )
    }
}

pub(super) fn ports(wanted: usize, capacity: Capacity) -> Check {
    let what = "local ports and --max-sessions";
    let ports = match capacity.ports {
        usize::MAX => "the range of local ports cannot be read".to_owned(),
        ports => format!("{ports} local ports for connections to one leader"),
    };
    if capacity.ports >= wanted {
        Check::ok(what, format!("{ports} here; {wanted} sessions fit"))
    } else {
        Check::warn(
            what,
            format!("{ports} here, fewer than {wanted} sessions"),
            "where pgnorth runs, widen net.ipv4.ip_local_port_range, give more addresses with --source, or lower --max-sessions",
        )
    }
}
