//! A session of the load: PostgreSQL's own start-up, then the work that the start-up names. Client and backend share
//! this definition.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes that go to the backend in a round trip: about as many as a prepared query of one row has.
pub const QUESTION: usize = 120;
/// Bytes that return.
pub const ANSWER: usize = 300;
/// Deadline of a session's waits: a session that waits longer hangs, and its figure fails.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Time without an answer after which a client counts as held.
const HELD: Duration = Duration::from_millis(300);

/// AuthenticationOk and ReadyForQuery: the answer of a server that trusts its clients.
pub const READY: [u8; 15] = *b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
/// The message Terminate: the server closes after it.
pub const TERMINATE: [u8; 5] = *b"X\0\0\0\x04";
/// The version of PostgreSQL's protocol, as in its pqcomm.h.
const PROTOCOL_3: u32 = 3 << 16;

/// The backend's work after the start-up, which has it as the name of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trade {
    /// Answers questions, on a thread that serves many sessions.
    Answer,
    /// Answers questions, on a thread of the session's own: the cheapest way for a single one.
    AnswerAlone,
    /// Takes bytes and discards them.
    Take,
    /// Sends bytes while they are taken.
    Give,
}

impl Trade {
    const ALL: [Self; 4] = [Self::Answer, Self::AnswerAlone, Self::Take, Self::Give];

    pub fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::AnswerAlone => "answer_alone",
            Self::Take => "take",
            Self::Give => "give",
        }
    }
}

/// Opens a session; returns when the backend has answered its start-up.
pub fn open(address: SocketAddr, trade: Trade) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&start_up("bench", trade.name()))?;
    let mut answer = [0; READY.len()];
    stream.read_exact(&mut answer)?;
    match answer == READY {
        true => Ok(stream),
        false => Err(refusal(&answer)),
    }
}

/// Ends a session as PostgreSQL's clients do: sends Terminate, and closes without waiting for the server.
pub fn terminate(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(&TERMINATE)
}

/// Returns true if a server behind this address answers a start-up, with or without a request for authentication.
pub fn is_answered(address: SocketAddr, user: &str, database: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&start_up(user, database))?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    match kind {
        [b'R'] => Ok(()),
        other => Err(refusal(&other)),
    }
}

/// Returns true if a start-up to this address is not answered for a while.
pub fn is_held(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(HELD))?;
    stream.write_all(&start_up("bench", Trade::Answer.name()))?;
    match stream.read(&mut [0; READY.len()]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        read => read.map(|_| false),
    }
}

/// Makes one round trip on a blocking socket.
pub fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&[b'q'; QUESTION])?;
    stream.read_exact(&mut [0; ANSWER])
}

/// Parses a start-up as the backend; `None` until the packet is complete.
pub fn wanted(bytes: &[u8]) -> io::Result<Option<Trade>> {
    let Some(length) = bytes.first_chunk().map(|length| u32::from_be_bytes(*length)) else {
        return Ok(None);
    };
    if bytes.len() < length as usize {
        return Ok(None);
    }
    let asks_for = |trade: &Trade| bytes == start_up("bench", trade.name());
    match Trade::ALL.into_iter().find(asks_for) {
        Some(trade) => Ok(Some(trade)),
        None => Err(io::Error::new(
            ErrorKind::InvalidData,
            "a start-up that no workload sends",
        )),
    }
}

/// Sends the backend's answer to a start-up.
pub fn greet(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&READY)
}

/// Returns a start-up packet.
pub fn start_up(user: &str, database: &str) -> Vec<u8> {
    let body = format!("user\0{user}\0database\0{database}\0\0");
    let length = u32::try_from(8 + body.len()).expect("a start-up is short");
    [
        &length.to_be_bytes()[..],
        &PROTOCOL_3.to_be_bytes()[..],
        body.as_bytes(),
    ]
    .concat()
}

fn refusal(answer: &[u8]) -> io::Error {
    let text = format!("the start-up was answered by {:?}", String::from_utf8_lossy(answer));
    io::Error::new(ErrorKind::InvalidData, text)
}
