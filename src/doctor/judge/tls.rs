//! Explains a TLS failure, with the file to change.

use crate::config::ClientTls;
use crate::discovery::patroni::TlsProblem;

/// Returns the description of the problem, and the fix.
pub(super) fn explain(trouble: &TlsProblem, files: &ClientTls) -> (String, String) {
    let ca = match &files.ca {
        Some(file) => format!("a CA in {} (--patroni-ca)", file.display()),
        None => "a CA of the system (--patroni-ca is not set)".to_owned(),
    };
    let (found, fix) = match trouble {
        TlsProblem::UnknownAuthority => (
            format!("unknown CA: its certificate is not signed by {ca}"),
            "set --patroni-ca to the PEM file of the authority that signed restapi.certfile (on Crunchy: ca.crt of the Secret <cluster>-cluster-cert)".to_owned(),
        ),
        TlsProblem::Expired => (
            "its certificate has expired, or is not valid yet".to_owned(),
            "renew restapi.certfile on this member and reload Patroni; check both clocks".to_owned(),
        ),
        TlsProblem::WrongName => (
            "its certificate is for other names than the host in this URL".to_owned(),
            "add this host to the certificate's subjectAltName, or use a name that is in it (restapi.connect_address, --patroni)".to_owned(),
        ),
        TlsProblem::CertificateRequired => (
            "it demands a client certificate (restapi.verify_client: required)".to_owned(),
            "set --patroni-cert and --patroni-key to a certificate that is signed by the CA in its restapi.cafile".to_owned(),
        ),
        TlsProblem::CertificateRefused => (
            "it rejects the client certificate".to_owned(),
            match &files.identity {
                Some(identity) => format!(
                    "{} must not have expired, and must be signed by the CA in restapi.cafile of this member",
                    identity.cert.display()
                ),
                None => "it requires a client certificate: set --patroni-cert and --patroni-key".to_owned(),
            },
        ),
        TlsProblem::NoTls => (
            "it does not use TLS, though its URL begins with https".to_owned(),
            "set restapi.certfile on this member, or write http:// in --patroni".to_owned(),
        ),
        TlsProblem::Other(why) => (
            format!("TLS fails: {why}"),
            "check restapi.certfile of this member; to show it: openssl s_client -connect <host:port>".to_owned(),
        ),
    };
    (found, fix)
}

/// Returns the fix of a TLS failure of etcd.
pub(super) fn fix_for_etcd(problem: &TlsProblem, files: &ClientTls) -> String {
    let identity = files.identity.as_ref();
    match problem {
        TlsProblem::UnknownAuthority => {
            "set --etcd-ca to the PEM file of the authority that signed etcd's --cert-file".to_owned()
        }
        TlsProblem::Expired => "renew the file in etcd's --cert-file; check both clocks".to_owned(),
        TlsProblem::WrongName => {
            "add the host in this URL to the subjectAltName of etcd's --cert-file, or use a name that is in it"
                .to_owned()
        }
        TlsProblem::CertificateRequired | TlsProblem::CertificateRefused => match identity {
            Some(identity) => format!(
                "{} must not have expired, and must be signed by the CA in etcd's --trusted-ca-file",
                identity.cert.display()
            ),
            None => "etcd requires a client certificate: set --etcd-cert and --etcd-key".to_owned(),
        },
        TlsProblem::NoTls => "etcd does not use TLS here: write http:// in --etcd".to_owned(),
        TlsProblem::Other(_) => {
            "check etcd's --cert-file; to show it: openssl s_client -connect <host:port>".to_owned()
        }
    }
}
