//! The endpoints of the admin port: one table for the router, for the answer to an unknown path, and for the
//! reference.

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Its path.
    pub path: &'static str,
    /// The page that the router answers.
    pub(super) page: Page,
    /// The answer, as one phrase.
    pub answer: &'static str,
    /// Further sentences for the reference; empty if the phrase is enough.
    pub more: &'static str,
}

/// The pages that the router answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Root,
    Livez,
    Readyz,
    Leader,
    Status,
    StatusEvents,
    Failovers,
    Metrics,
    Command,
}

const fn endpoint(path: &'static str, page: Page, answer: &'static str, more: &'static str) -> Endpoint {
    Endpoint {
        path,
        page,
        answer,
        more,
    }
}

/// Every endpoint, in the order of the reference.
#[rustfmt::skip]
pub const ENDPOINTS: [Endpoint; 11] = [
    endpoint("/", Page::Root, "the status page, for a browser", ""),
    endpoint("/livez", Page::Livez, "200 while no thread of the process is stuck, otherwise 503 and the name of a stuck thread",
        "A thread counts as stuck after 10 s."),
    endpoint("/readyz", Page::Readyz, "200 while clients should be sent here, otherwise 503 and the reason",
        "pgnorth is ready once a source has answered, with or without a leader. It stays ready during an operator's hold, because it is better to hold clients than to refuse them. It is not ready while it starts or shuts down."),
    endpoint("/leader", Page::Leader, "the leader, the routing state and its reason (JSON); 503 while clients are held",
        "The fields are the same with 200 and 503."),
    endpoint("/status", Page::Status, "everything that the status page and `pgnorth status` show (JSON)", "Always 200. It includes the last ten minutes, one value per second."),
    endpoint("/status/events", Page::StatusEvents, "the content of /status as server-sent events (`event: status`)",
        "One event immediately, one at each change (at most four per second), and one every second. At most 16 readers at a time; further readers get 503. A reader that leaves an event unread for 10 s is disconnected."),
    endpoint("/failovers", Page::Failovers, "the last 100 changes of leader with their phases, newest first (JSON)", ""),
    endpoint("/metrics", Page::Metrics, "metrics in Prometheus' text format 0.0.4", ""),
    endpoint("/hold", Page::Command, "new clients wait, for a minute or as long as `?for=` sets, such as `?for=5m`", ""),
    endpoint("/release", Page::Command, "the hold ends; waiting clients go to the leader, if there is one", ""),
    endpoint("/sessions/cut", Page::Command, "all sessions end, or those to `?member=`", ""),
];

impl Endpoint {
    /// Returns the methods that the endpoint answers.
    pub const fn methods(&self) -> &'static str {
        match self.page {
            Page::Command => "POST",
            _ => "GET, HEAD",
        }
    }

    /// Returns the page of this path.
    pub(super) fn page_of(path: &str) -> Option<Page> {
        ENDPOINTS
            .iter()
            .find(|endpoint| endpoint.path == path)
            .map(|endpoint| endpoint.page)
    }

    /// Returns the list for a client that asked for an unknown path.
    pub(super) fn list() -> String {
        let width = ENDPOINTS
            .iter()
            .map(|endpoint| endpoint.path.len())
            .max()
            .unwrap_or_default();
        let line = |endpoint: &Self| format!("{:<width$}  {}\n", endpoint.path, endpoint.answer);
        let (commands, pages): (Vec<_>, Vec<_>) = ENDPOINTS.iter().partition(|endpoint| endpoint.page == Page::Command);
        let pages: String = pages.into_iter().map(line).collect();
        let commands: String = commands.into_iter().map(line).collect();
        format!("{pages}\nOperator commands, with POST and the token of --admin-token-file:\n\n{commands}")
    }
}
