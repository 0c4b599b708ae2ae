//! Checks of this host: its credentials for the API, clocks, token and certificate files, open files, local ports.

use crate::config::DEFAULT_SESSIONS;
use crate::doctor::check::Check;
use crate::doctor::facts::{Answer, Api, ApiFailure, Capacity, Renewal};

/// Tolerated difference between clocks. NTP keeps them within milliseconds, but the Date header has whole seconds.
const SKEW: f64 = 2.0;

pub(super) fn credentials(namespace: &str, version: &Answer<String>) -> Check {
    let version = match version {
        Ok(version) => format!("version {version}"),
        Err(_) => "its version is unknown".to_owned(),
    };
    Check::ok(
        "credentials",
        format!("the Kubernetes API answers, {version}; namespace {namespace}"),
    )
}

/// Returns the check, and the reason why the checks that need the API are not done.
pub(super) fn failure(failure: &ApiFailure) -> (Check, &'static str) {
    let what = "credentials";
    match failure {
        ApiFailure::NoCredentials(why) => (
            Check::fail(
                what,
                why,
                "on a laptop: set KUBECONFIG, and verify it with kubectl config current-context. In a pod: set serviceAccountName, and automountServiceAccountToken: true",
            ),
            "there are no Kubernetes credentials",
        ),
        ApiFailure::Unauthorized(why) => (
            Check::fail(
                what,
                format!("the Kubernetes API rejects them: {why}"),
                "the token or certificate has expired, or belongs to another cluster: log in again, and try kubectl auth whoami",
            ),
            "the Kubernetes API rejects the credentials",
        ),
        ApiFailure::Unreachable(why) => (
            Check::fail(
                what,
                format!("the Kubernetes API cannot be reached: {why}"),
                "try kubectl version with the same credentials. In a pod, egress to the API server must be allowed (deploy/base/networkpolicy.yaml); on a laptop, check VPN and proxy",
            ),
            "the Kubernetes API cannot be reached",
        ),
    }
}

/// Checks clocks, for information only: the lock's age is measured with the local clock, from the arrival of a renewal.
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
            "{:.0} s {than} this host's; pgnorth does not use that clock for the lock's ttl, but the difference matters for certificates, tokens, scheduled switchovers and log timestamps",
            ahead.abs()
        ),
        "synchronise both clocks with NTP",
    )
}

/// Checks the operators' token. A missing token affects no session, but would be noticed only when an operator needs a
/// command.
pub(super) fn admin_token(token: &Answer<()>) -> Check {
    let what = "token for operator commands";
    match token {
        Ok(()) => Check::ok(what, "it can be read"),
        Err(problem) => Check::warn(
            what,
            format!("{problem}; operator commands are rejected"),
            "--admin-token-file must name a file that this process can read, with one word of 16 characters or more",
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
            "--refusal-cert must name a PEM certificate chain and --refusal-key its private key; this process must be able to read both files",
        ),
    }
}

/// Checks --max-sessions against the limit of open files. The default is lowered to fit, without a warning.
pub(super) fn open_files(wanted: Option<usize>, capacity: Capacity) -> Check {
    let what = "open files and --max-sessions";
    let files = match capacity.files {
        usize::MAX => "no limit of open files".to_owned(),
        files => format!("a hard limit of {files} open files"),
    };
    let wanted = wanted.unwrap_or(DEFAULT_SESSIONS.min(capacity.sessions));
    if capacity.sessions >= wanted {
        Check::ok(what, format!("{files} here; {wanted} sessions fit"))
    } else {
        Check::warn(
            what,
            format!("{files} here allows {} sessions, not {wanted}", capacity.sessions),
            "where pgnorth runs, raise the hard limit (ulimit -Hn; LimitNOFILE= in systemd; the container runtime's), or lower --max-sessions",
        )
    }
}

pub(super) fn ports(wanted: Option<usize>, capacity: Capacity) -> Check {
    let what = "local ports and --max-sessions";
    let Some(ports) = capacity.ports else {
        return Check::ok(what, "unknown: the range of local ports cannot be read here");
    };
    let wanted = wanted.unwrap_or(DEFAULT_SESSIONS.min(ports));
    let found = format!("{ports} local ports for connections to one leader");
    if ports >= wanted {
        Check::ok(what, format!("{found} here; {wanted} sessions fit"))
    } else {
        Check::warn(
            what,
            format!("{found} here, too few for {wanted} sessions"),
            "where pgnorth runs, widen net.ipv4.ip_local_port_range, give more addresses with --source, or lower --max-sessions",
        )
    }
}
