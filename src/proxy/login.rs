//! The rest of a login after the leader's first answer, as far as it can be recognised from outside. The kinds and
//! lengths of TLS records, or the lengths of plaintext answers, suffice; nothing is decrypted.

/// Minimum length of the greeting. PostgreSQL sends AuthenticationOk, its parameters, the cancellation key and
/// ReadyForQuery in one write of about 400 bytes. Its earlier messages, after the TLS handshake, are shorter: a SASL
/// challenge has about 100 bytes. An error may be as long, and ends a login, too.
const GREETING: usize = 256;
/// TLS content type of encrypted records; before TLS 1.3, those of the handshake have another type.
const APPLICATION_DATA: u8 = 23;
/// First bytes of a ClientHello: a handshake record of TLS.
const CLIENT_HELLO: &[u8] = &[22, 3];
/// Code of AuthenticationOk: no challenge, and the greeting follows in the same write.
const OK: &[u8] = &[0; 4];

/// A login that is being followed.
#[derive(Debug)]
pub(super) struct Login {
    client: Records,
    leader: Records,
    /// True if the leader has finished the handshake, so that its next records are not a certificate.
    is_past_handshake: bool,
    is_encrypted: bool,
    /// True if the leader has to answer next.
    pub(super) asked: bool,
}

/// The records of one direction of TLS (RFC 8446, 5.1).
#[derive(Debug, Default)]
struct Records {
    header: Vec<u8>,
    /// Bytes of the record's body that are yet to come.
    left: usize,
}

impl Login {
    /// Returns the login of a client that uses TLS, before the first record.
    pub(super) fn encrypted() -> Self {
        Self {
            client: Records::default(),
            leader: Records::default(),
            is_past_handshake: false,
            is_encrypted: true,
            asked: false,
        }
    }

    /// Returns a login that begins with the client's first bytes, if they are TLS without an SSLRequest
    /// (`sslnegotiation=direct`).
    pub(super) fn direct(first: &[u8]) -> Option<Self> {
        let mut login = first.starts_with(CLIENT_HELLO).then(Self::encrypted)?;
        login.on_client(first);
        Some(login)
    }

    /// Returns a login in which the leader has answered a plaintext start-up, if the answer is a challenge.
    pub(super) fn challenged(answer: &[u8]) -> Option<Self> {
        let code = answer.get(5..9)?;
        (answer[0] == b'R' && code != OK).then(|| Self {
            is_encrypted: false,
            ..Self::encrypted()
        })
    }

    pub(super) fn on_client(&mut self, bytes: &[u8]) {
        self.asked = true;
        // The client's first record of application data is the start-up packet before TLS 1.3, and the end of the
        // client's handshake since TLS 1.3.
        self.is_past_handshake |= self.client.longest(bytes) > 0;
    }

    /// Reads the leader's bytes. Returns true if the login is over.
    pub(super) fn on_leader(&mut self, bytes: &[u8]) -> bool {
        self.asked = false;
        match self.is_encrypted {
            true => self.leader.longest(bytes) >= GREETING && self.is_past_handshake,
            false => bytes.len() >= GREETING,
        }
    }
}

impl Records {
    /// Reads the next bytes of the stream. Returns the length of the longest application data record that begins in
    /// them.
    fn longest(&mut self, mut bytes: &[u8]) -> usize {
        let mut longest = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let body = self.left.min(bytes.len());
                self.left -= body;
                bytes = &bytes[body..];
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            if let [kind, _, _, high, low] = self.header[..] {
                self.left = u16::from_be_bytes([high, low]).into();
                self.header.clear();
                if kind == APPLICATION_DATA {
                    longest = longest.max(self.left);
                }
            }
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: bool = false;
    const LEADER: bool = true;

    /// One step: the sender, and the kinds and lengths of its records.
    type Message = (bool, Vec<(u8, u16)>);

    fn records(kinds_and_lengths: &[(u8, u16)]) -> Vec<u8> {
        let record = |(kind, length): &(u8, u16)| {
            let [high, low] = length.to_be_bytes();
            let mut record = vec![*kind, 3, 3, high, low];
            record.resize(5 + usize::from(*length), 23);
            record
        };
        kinds_and_lengths.iter().flat_map(record).collect()
    }

    /// Returns the records of psql 15 and PostgreSQL 15; the last is the greeting.
    fn conversations() -> Vec<(&'static str, Vec<Message>)> {
        let hello = || {
            vec![
                (CLIENT, vec![(22, 288)]),
                // PostgreSQL's curve is not the one that OpenSSL guesses: HelloRetryRequest.
                (LEADER, vec![(22, 88), (20, 1)]),
                (CLIENT, vec![(20, 1), (22, 321)]),
                (LEADER, vec![(22, 155), (23, 23), (23, 795), (23, 281), (23, 69)]),
            ]
        };
        let tls12 = || {
            vec![
                (CLIENT, vec![(22, 183)]),
                (LEADER, vec![(22, 61), (22, 775), (22, 333), (22, 4)]),
                (CLIENT, vec![(22, 70), (20, 1), (22, 40)]),
                (LEADER, vec![(20, 1), (22, 40)]),
            ]
        };
        let trust = vec![
            (CLIENT, vec![(23, 69)]),
            (CLIENT, vec![(23, 73)]),
            (LEADER, vec![(23, 425)]),
        ];
        let tickets = vec![
            (CLIENT, vec![(23, 69)]),
            (LEADER, vec![(23, 74), (23, 74)]),
            (CLIENT, vec![(23, 73)]),
            (LEADER, vec![(23, 425)]),
        ];
        let scram = vec![
            (CLIENT, vec![(23, 69), (23, 73)]),
            (LEADER, vec![(23, 60)]),
            (CLIENT, vec![(23, 98)]),
            (LEADER, vec![(23, 110)]),
            (CLIENT, vec![(23, 198)]),
            (LEADER, vec![(23, 480)]),
        ];
        let trust12 = vec![(CLIENT, vec![(23, 80)]), (LEADER, vec![(23, 432)])];
        vec![
            ("TLS 1.3, trust", [hello(), trust].concat()),
            ("TLS 1.3, tickets (made up)", [hello(), tickets].concat()),
            ("TLS 1.3, SCRAM", [hello(), scram].concat()),
            ("TLS 1.2, trust", [tls12(), trust12].concat()),
        ]
    }

    #[test]
    fn a_tls_login_is_over_with_the_greeting_however_its_records_are_cut() {
        for (name, conversation) in conversations() {
            for piece in [1, 4, 7, 4096] {
                let mut login = Login::encrypted();
                let last = conversation.len() - 1;
                for (at, (who, said)) in conversation.iter().enumerate() {
                    let mut over = false;
                    for piece in records(said).chunks(piece) {
                        match *who {
                            LEADER => over |= login.on_leader(piece),
                            CLIENT => login.on_client(piece),
                        }
                    }
                    assert_eq!(over, at == last, "{name}, step {at}, in pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn a_plaintext_login_is_over_with_the_greeting_too() {
        let challenge = |code: u8| [b'R', 0, 0, 0, 23, 0, 0, 0, code, b'S'];
        assert!(Login::challenged(&challenge(0)).is_none(), "AuthenticationOk");
        assert!(Login::challenged(b"E\0\0\0\x0fC28P01\0Mx\0\0").is_none());
        assert!(Login::challenged(b"R").is_none());
        let mut login = Login::challenged(&challenge(10)).unwrap();
        assert!(!login.on_leader(&[b'R'; 93]));
        assert!(login.on_leader(&[b'R'; 463]));
    }

    #[test]
    fn tls_without_a_request_is_known_by_its_first_record() {
        assert!(Login::direct(b"GET / HTTP/1.1").is_none());
        let mut login = Login::direct(&records(&[(22, 288)])).unwrap();
        assert!(login.asked);
        assert!(!login.on_leader(&records(&[(22, 155), (23, 795)])), "a certificate");
        login.on_client(&records(&[(23, 69), (23, 73)]));
        assert!(login.on_leader(&records(&[(23, 425)])));
    }
}
