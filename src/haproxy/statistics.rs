//! HAProxy's statistics as CSV (pure): the servers of each backend (HAProxy's management guide, 9.1 "CSV format").

use thiserror::Error;

use crate::leader::Address;

/// The value of the column `type` for servers.
const SERVER: &str = "2";

/// A server of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaproxyServer {
    /// The backend, or `listen` section.
    pub backend: String,
    /// Its name.
    pub name: String,
    /// True if HAProxy sends new sessions to it.
    pub is_up: bool,
    /// Open sessions.
    pub sessions: u64,
    /// Its address. HAProxy shows it on a socket of level `operator` or `admin`, or with `stats show-legends`.
    pub address: Option<Address>,
}

/// The reason why a text cannot be used as statistics.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadStatistics {
    /// Another page, or another command's output.
    #[error("the answer does not begin with `# pxname,svname,`: it is not HAProxy's statistics as CSV")]
    NoHeader,
    /// A column is missing that every version since 1.4 has.
    #[error("the column {0} is missing")]
    NoColumn(&'static str),
    /// The text was cut off.
    #[error("line {0} has fewer fields than the header: the statistics are cut off")]
    CutOff(usize),
    /// A number of sessions that is not a number.
    #[error("server {0}: {1:?} is not a number of sessions")]
    Sessions(String, String),
}

/// Parses the statistics. Returns all servers, in the order of the text.
pub fn parse(text: &str) -> Result<Vec<HaproxyServer>, BadStatistics> {
    let header = text.strip_prefix("# ").ok_or(BadStatistics::NoHeader)?;
    let mut records = records(header).into_iter();
    let header = records.next().ok_or(BadStatistics::NoHeader)?;
    if !header.starts_with(&["pxname".to_owned(), "svname".to_owned()]) {
        return Err(BadStatistics::NoHeader);
    }
    let find = |name: &str| header.iter().position(|column| column == name);
    let column = |name| find(name).ok_or(BadStatistics::NoColumn(name));
    let (kind, status, sessions, address) = (column("type")?, column("status")?, column("scur")?, find("addr"));
    let mut servers = Vec::new();
    for (place, record) in records.enumerate() {
        // This is the empty line at the end.
        if record == [""] {
            continue;
        }
        if record.len() < header.len() {
            return Err(BadStatistics::CutOff(place + 2));
        }
        if record[kind] == SERVER {
            let open = &record[sessions];
            let name = record[1].clone();
            servers.push(HaproxyServer {
                backend: record[0].clone(),
                is_up: takes_sessions(&record[status]),
                sessions: (open.parse()).map_err(|_| BadStatistics::Sessions(name.clone(), open.clone()))?,
                address: address.and_then(|column| parse_address(&record[column])),
                name,
            });
        }
    }
    Ok(servers)
}

/// Returns true if new sessions go to a server with this status. A server with `UP 1/3` has failed a check and is still
/// used; one with `DOWN 1/2` has passed a check and is not used yet.
fn takes_sessions(status: &str) -> bool {
    status.starts_with("UP") || status == "no check"
}

fn parse_address(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    Address::new(host, port.parse().ok()?).ok()
}

/// Splits a text into records of fields. A quoted field may contain commas and line breaks; a quote within it is
/// doubled.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut letters) = (false, text.chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\r' if !quoted && letters.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            letter => field.push(letter),
        }
    }
    if !record.is_empty() || !field.is_empty() {
        record.push(field);
        records.push(record);
    }
    records
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Some columns of HAProxy 2.6, and their order.
    const HEADER: &str = "# pxname,svname,scur,status,type,last_chk,addr,\n";

    fn servers(rows: &str) -> Result<Vec<HaproxyServer>, BadStatistics> {
        parse(&format!("{HEADER}{rows}\n"))
    }

    #[test]
    fn servers_are_read_and_other_rows_are_not() {
        let rows = "primary,FRONTEND,3,OPEN,0,,,\n\
                    primary,a,3,UP 1/3,2,\"Layer7 wrong status, \"\"503\"\"\nline two\",10.0.0.1:5432,\n\
                    primary,b,0,DOWN 1/2,2,,[fd00::2]:5432,\n\
                    primary,BACKEND,3,UP,1,,,\n";
        let [a, b] = &servers(rows).unwrap()[..] else {
            panic!("two servers")
        };
        assert_eq!(
            (a.backend.as_str(), a.name.as_str(), a.is_up, a.sessions),
            ("primary", "a", true, 3)
        );
        assert_eq!(a.address, Some(Address::new("10.0.0.1", 5432).unwrap()));
        assert!(!b.is_up, "it has passed one check of two");
        assert_eq!(b.address, Some(Address::new("fd00::2", 5432).unwrap()));
    }

    #[test]
    fn new_sessions_go_to_servers_that_are_up_or_not_checked() {
        for (status, up) in [
            ("UP", true),
            ("UP 2/3", true),
            ("no check", true),
            ("DOWN", false),
            ("DOWN (agent)", false),
            ("NOLB", false),
            ("DRAIN", false),
            ("MAINT", false),
            ("MAINT (resolution)", false),
        ] {
            assert_eq!(takes_sessions(status), up, "{status}");
        }
    }

    #[test]
    fn what_is_no_whole_statistics_is_refused_with_the_reason() {
        assert_eq!(parse("<html>"), Err(BadStatistics::NoHeader));
        assert_eq!(parse("# a,b\n"), Err(BadStatistics::NoHeader));
        assert_eq!(
            parse("# pxname,svname,scur,status\n"),
            Err(BadStatistics::NoColumn("type"))
        );
        assert_eq!(
            servers("primary,a,0,UP,2,,,\nprimary,b,1"),
            Err(BadStatistics::CutOff(3))
        );
        let sessions = BadStatistics::Sessions("a".to_owned(), "many".to_owned());
        assert_eq!(servers("primary,a,many,UP,2,,,"), Err(sessions));
        assert_eq!(servers("primary,a,0,UP,2,,unix,").unwrap()[0].address, None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _either = parse(&text);
            let _either = servers(&text);
        }

        #[test]
        fn quoted_fields_come_back_as_they_were(fields in prop::collection::vec(any::<String>(), 1..5)) {
            let quote = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
            let line = fields.iter().map(quote).collect::<Vec<_>>().join(",") + "\n";
            prop_assert_eq!(records(&line), vec![fields]);
        }

        #[test]
        fn a_beginning_of_statistics_never_has_a_server_that_the_whole_has_not(cut in 0_usize..120) {
            let whole = format!("{HEADER}primary,a,1,UP,2,,10.0.0.1:5432,\nprimary,b,2,DOWN,2,,10.0.0.2:5432,\n");
            let all = parse(&whole).unwrap();
            if let Some(Ok(some)) = whole.get(..cut).map(parse) {
                prop_assert!(some.iter().all(|server| all.contains(server)), "{some:?}");
            }
        }
    }
}
