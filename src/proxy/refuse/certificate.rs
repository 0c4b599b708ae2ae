//! A self-signed certificate, generated at start, for refusals if the operator configured no certificate.

use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The subject, and the name for which the certificate is valid. Go's drivers show this name to users who verify
/// certificates, so it says that pgnorth refused the connection.
pub(super) const NAME: &str = "refused-by-pgnorth";

// DER (X.690) tags.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const DNS_NAME: u8 = 0x82;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

// Object identifiers, encoded (RFC 5480, RFC 5758, RFC 5280).
const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
const PRIME256V1: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const ECDSA_WITH_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const COMMON_NAME_ID: &[u8] = b"\x06\x03\x55\x04\x03";
const SUBJECT_ALT_NAME: &[u8] = b"\x06\x03\x55\x1d\x11";

/// Generates a P-256 key and a certificate for it. The certificate proves no identity: it only allows encryption for
/// clients that do not verify certificates.
pub(super) fn self_signed() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Unspecified> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random)
        .map_err(|_rejected| Unspecified)?;
    let mut serial = [0; 16];
    random.fill(&mut serial)?;
    let algorithm = der(SEQUENCE, &[ECDSA_WITH_SHA256]);
    let body = to_be_signed(&serial, pair.public_key().as_ref(), &algorithm);
    let signature = pair.sign(&random, &body)?;
    let signature = der(BIT_STRING, &[&[0], signature.as_ref()]);
    let certificate = der(SEQUENCE, &[&body, &algorithm, &signature]);
    let key = PrivatePkcs8KeyDer::from(key.as_ref().to_vec());
    Ok((CertificateDer::from(certificate), PrivateKeyDer::Pkcs8(key)))
}

/// Builds the TBSCertificate (RFC 5280, 4.1). It has version 3, because some clients parse no older version, and does
/// not expire, because the key exists only as long as the process.
fn to_be_signed(serial: &[u8; 16], public_key: &[u8], algorithm: &[u8]) -> Vec<u8> {
    // The leading 0x01 makes the number positive, and its encoding the shortest.
    let serial = der(INTEGER, &[&[1], serial]);
    let name = der(SEQUENCE, &[COMMON_NAME_ID, &der(UTF8_STRING, &[NAME.as_bytes()])]);
    let name = der(SEQUENCE, &[&der(SET, &[&name])]);
    let begin = der(UTC_TIME, &[b"000101000000Z"]);
    let end = der(GENERALIZED_TIME, &[b"99991231235959Z"]);
    let key_kind = der(SEQUENCE, &[EC_PUBLIC_KEY, PRIME256V1]);
    let key = der(SEQUENCE, &[&key_kind, &der(BIT_STRING, &[&[0], public_key])]);
    let names = der(SEQUENCE, &[&der(DNS_NAME, &[NAME.as_bytes()])]);
    let extension = der(SEQUENCE, &[SUBJECT_ALT_NAME, &der(OCTET_STRING, &[&names])]);
    let parts = [
        der(VERSION, &[&der(INTEGER, &[&[2]])]),
        serial,
        algorithm.to_vec(),
        name.clone(),
        der(SEQUENCE, &[&begin, &end]),
        name,
        key,
        der(EXTENSIONS, &[&der(SEQUENCE, &[&extension])]),
    ];
    der(SEQUENCE, &parts.each_ref().map(Vec::as_slice))
}

/// Encodes one element. Its content must be shorter than 64 KiB.
fn der(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let [high, low] = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut element = match (high, low) {
        (0, ..0x80) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    element.extend(content);
    element
}
