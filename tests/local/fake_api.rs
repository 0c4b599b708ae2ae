//! A fake kube-apiserver, for the faults that the real one cannot produce on demand: list, watch and get of three kinds
//! of object, over plain HTTP. It keeps resource versions as the real one does: a watch gets every event since the
//! version in its request, or 410 Gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use url::Url;

/// The API server. It ends with the test's runtime.
#[derive(Clone)]
pub struct FakeApi {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    revision: u64,
    /// Watches from before this revision are answered with 410.
    oldest: u64,
    objects: BTreeMap<(String, String), Value>,
    events: Vec<(u64, String, Value)>,
    gone: Option<Gone>,
    gone_answers: u32,
    /// Open watches of an older generation end.
    generation: u64,
    watches_mute: bool,
    hangs: bool,
    forbidden: Vec<String>,
    /// The Events in requests to create one, rejected requests included.
    written: Vec<Value>,
    /// Requests to create an Event are not answered.
    writes_hang: bool,
    gets: u32,
    /// The timeouts that watches asked for, in seconds.
    watches: Vec<u64>,
}

/// The form of the answer 410 Gone.
#[derive(Clone, Copy, Debug)]
pub enum Gone {
    /// Open watches end, and the next request to watch is answered with this status.
    Status,
    /// Open watches get an event of type ERROR with this code.
    Event,
}

struct Query {
    kind: String,
    name: Option<String>,
    labels: Option<String>,
    watch_from: Option<u64>,
    seconds: Option<u64>,
}

enum Reply {
    Hang,
    Whole(u16, Value),
    Watch,
}

impl FakeApi {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Self {
            address: listener.local_addr().unwrap(),
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    revision: 1,
                    ..State::default()
                }),
                changed: watch::Sender::new(0),
            }),
        };
        let shared = api.shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        api
    }

    /// Creates or replaces an object: `kind` is `endpoints`, `configmaps`, `pods` or `services`; a Service has a
    /// selector.
    pub fn put(&self, kind: &str, name: &str, annotations: &Value) {
        let mut state = self.state();
        state.revision += 1;
        let revision = state.revision;
        let mut object = json!({
            "apiVersion": "v1",
            "metadata": {
                "name": name, "namespace": "default", "uid": format!("{kind}-{name}"), "resourceVersion": revision.to_string(),
                "labels": {"cluster-name": "pg"}, "annotations": annotations,
            },
        });
        if kind == "pods" {
            // Nothing listens there: a client that falls back to this address reaches nothing.
            object["status"] = json!({"podIP": "127.0.0.99"});
        }
        if kind == "services" {
            object["spec"] = json!({"selector": {"app": "postgres"}, "ports": [{"port": 5432}]});
        }
        object["kind"] = json!(kind_of(kind));
        let known = state.objects.insert((kind.into(), name.into()), object.clone());
        let event = json!({"type": if known.is_some() { "MODIFIED" } else { "ADDED" }, "object": object});
        state.events.push((revision, kind.into(), event));
        drop(state);
        self.tell();
    }

    /// Creates a Service without a selector.
    pub fn put_service_without_selector(&self, name: &str) {
        self.put("services", name, &json!({}));
        let mut state = self.state();
        let service = state.objects.get_mut(&("services".into(), name.into())).unwrap();
        service["spec"] = json!({"ports": [{"name": "postgresql", "port": 5432}]});
    }

    /// Returns an object as it was written last.
    pub fn object(&self, kind: &str, name: &str) -> Option<Value> {
        self.state().objects.get(&(kind.into(), name.into())).cloned()
    }

    /// Makes `change` without an event for any watch, because the history is lost.
    pub fn lose_history(&self, how: Gone, change: impl FnOnce()) {
        self.state().watches_mute = true;
        change();
        let mut state = self.state();
        state.watches_mute = false;
        state.events.clear();
        state.oldest = state.revision;
        state.gone = Some(how);
        state.generation += 1;
        drop(state);
        self.tell();
    }

    /// Ends open watches and answers every further request to watch with 410.
    pub fn keep_no_history(&self) {
        let mut state = self.state();
        state.oldest = u64::MAX;
        state.gone = Some(Gone::Status);
        state.generation += 1;
        drop(state);
        self.tell();
    }

    /// Returns the number of answers with 410.
    pub fn gone_answers(&self) -> u32 {
        self.state().gone_answers
    }

    /// Keeps every watch, old or new, open without events from now on.
    pub fn mute_watches(&self) {
        self.state().watches_mute = true;
    }

    /// Accepts connections, but answers no request from now on.
    pub fn hang(&self) {
        let mut state = self.state();
        state.watches_mute = true;
        state.hangs = true;
    }

    /// Answers requests for this kind of object with 403 from now on.
    pub fn forbid(&self, kind: &str) {
        self.state().forbidden.push(kind.into());
    }

    /// Accepts requests to create an Event, and never answers them.
    pub fn hang_writes(&self) {
        self.state().writes_hang = true;
    }

    /// Returns the Events that clients asked to create.
    pub fn written(&self) -> Vec<Value> {
        self.state().written.clone()
    }

    /// Returns the number of requests for a single object.
    pub fn gets(&self) -> u32 {
        self.state().gets
    }

    /// Returns the timeouts that watches have asked for so far, in seconds.
    pub fn watches(&self) -> Vec<u64> {
        self.state().watches.clone()
    }

    fn tell(&self) {
        self.shared.changed.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.split(' ').nth(1)?;
    if target == "/apis" {
        // None: a publisher with --endpoints then writes Endpoints alone.
        let groups = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []});
        return answer(stream, 200, &groups).await;
    }
    if head.starts_with("POST ") || head.starts_with("PUT ") {
        let body = body(&mut stream, &head).await?;
        return match target {
            events if events.contains("/events") => write(stream, body, &shared).await,
            endpoints if endpoints.contains("/endpoints") => keep(stream, body, &shared).await,
            _ => review(stream, body, &shared).await,
        };
    }
    if target.starts_with("/version") {
        if shared.state.lock().unwrap().hangs {
            return std::future::pending().await;
        }
        let version = json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0-fake", "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
        return answer(stream, 200, &version).await;
    }
    let (query, get) = parse(target)?;
    // Two statements: the lock must not be held across an await.
    let (reply, generation) = {
        let mut state = shared.state.lock().unwrap();
        (state.reply(&query, get), state.generation)
    };
    match reply {
        Reply::Hang => std::future::pending().await,
        Reply::Whole(status, body) => answer(stream, status, &body).await,
        Reply::Watch => tell_events(stream, &shared, &query, generation).await,
    }
}

async fn answer(mut stream: TcpStream, status: u16, body: &Value) -> Option<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} Fake\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.ok()
}

async fn body(stream: &mut TcpStream, head: &str) -> Option<Value> {
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    serde_json::from_slice(&body).ok()
}

/// Answers a request to create an Event.
async fn write(stream: TcpStream, event: Value, shared: &Shared) -> Option<()> {
    let (hangs, forbidden) = {
        let mut state = shared.state.lock().unwrap();
        state.written.push(event.clone());
        (state.writes_hang, state.forbidden.contains(&"events".to_owned()))
    };
    if hangs {
        return std::future::pending().await;
    }
    if forbidden {
        let message = "events.events.k8s.io is forbidden: User \"pgnorth\" cannot create resource \"events\"";
        return answer(stream, 403, &failure(403, "Forbidden", message)).await;
    }
    answer(stream, 201, &event).await
}

/// Answers a request to create or to replace Endpoints, whatever version it is based on.
async fn keep(stream: TcpStream, mut endpoints: Value, shared: &Shared) -> Option<()> {
    let name = endpoints["metadata"]["name"].as_str()?.to_owned();
    {
        let mut state = shared.state.lock().unwrap();
        state.revision += 1;
        endpoints["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        state.objects.insert(("endpoints".into(), name), endpoints.clone());
    }
    answer(stream, 201, &endpoints).await
}

/// Answers a SelfSubjectAccessReview: rights that are forbidden are not granted.
async fn review(stream: TcpStream, mut review: Value, shared: &Shared) -> Option<()> {
    let kind = review["spec"]["resourceAttributes"]["resource"].as_str()?.to_owned();
    let allowed = !shared.state.lock().unwrap().forbidden.contains(&kind);
    review["status"] = json!({"allowed": allowed});
    answer(stream, 201, &review).await
}

async fn tell_events(mut stream: TcpStream, shared: &Shared, query: &Query, generation: u64) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut changed = shared.changed.subscribe();
    let mut seen = query.watch_from?;
    loop {
        let (lines, end) = {
            let mut state = shared.state.lock().unwrap();
            state.news(query, &mut seen, generation)
        };
        stream.write_all(lines.as_bytes()).await.ok()?;
        if end {
            return None;
        }
        changed.changed().await.ok()?;
    }
}

/// Parses `/api/v1/namespaces/default/<kind>[/<name>]?…`; true for a GET of one object.
fn parse(target: &str) -> Option<(Query, bool)> {
    let url = Url::parse(&format!("http://api{target}")).ok()?;
    let mut path = url.path().trim_matches('/').split('/').skip(4);
    let parameter = |name: &str| Some(url.query_pairs().find(|(key, _)| key == name)?.1.into_owned());
    let kind = path.next()?.to_owned();
    let single = path.next().map(str::to_owned);
    let selected = parameter("fieldSelector").and_then(|text| Some(text.strip_prefix("metadata.name=")?.to_owned()));
    let watches = parameter("watch").is_some_and(|watch| watch == "true" || watch == "1");
    let from = parameter("resourceVersion").and_then(|version| version.parse().ok());
    let get = single.is_some();
    let query = Query {
        kind,
        name: single.or(selected),
        labels: parameter("labelSelector"),
        watch_from: watches.then(|| from.unwrap_or(0)),
        seconds: parameter("timeoutSeconds").and_then(|seconds| seconds.parse().ok()),
    };
    Some((query, get))
}

impl State {
    fn reply(&mut self, query: &Query, get: bool) -> Reply {
        if get {
            self.gets += 1;
        }
        if self.hangs {
            return Reply::Hang;
        }
        let object = query.name.as_ref().map(|name| format!("{}/{name}", query.kind));
        if self.forbidden.contains(&query.kind) || object.is_some_and(|object| self.forbidden.contains(&object)) {
            let verb = if get { "get" } else { "list" };
            let message = format!(
                "{} is forbidden: User \"pgnorth\" cannot {verb} resource \"{}\"",
                query.kind, query.kind
            );
            return Reply::Whole(403, failure(403, "Forbidden", &message));
        }
        match query.watch_from {
            Some(from) if from < self.oldest => {
                self.gone_answers += 1;
                Reply::Whole(410, failure(410, "Expired", "too old resource version"))
            }
            Some(_) => {
                self.watches.push(query.seconds.unwrap_or(u64::MAX));
                Reply::Watch
            }
            None => {
                let mut found = self.objects.iter().filter(|((kind, _), _)| *kind == query.kind);
                if get {
                    return match found.find(|(_, object)| query.selects(object)) {
                        Some((_, object)) => Reply::Whole(200, object.clone()),
                        None => Reply::Whole(404, failure(404, "NotFound", "not found")),
                    };
                }
                let items: Vec<&Value> = found
                    .map(|(_, object)| object)
                    .filter(|object| query.selects(object))
                    .collect();
                let version = self.revision.to_string();
                let kind = format!("{}List", kind_of(&query.kind));
                let list =
                    json!({"apiVersion": "v1", "kind": kind, "metadata": {"resourceVersion": version}, "items": items});
                Reply::Whole(200, list)
            }
        }
    }

    /// Returns the events for a watch now, and whether it ends.
    fn news(&mut self, query: &Query, seen: &mut u64, generation: u64) -> (String, bool) {
        if self.watches_mute {
            return (String::new(), false);
        }
        if self.generation != generation {
            return match self.gone {
                Some(Gone::Event) => {
                    self.gone_answers += 1;
                    let error = failure(410, "Expired", "too old resource version");
                    (format!("{}\n", json!({"type": "ERROR", "object": error})), true)
                }
                Some(Gone::Status) | None => (String::new(), true),
            };
        }
        let lines = self
            .events
            .iter()
            .filter(|(revision, kind, event)| {
                *revision > *seen && *kind == query.kind && query.selects(&event["object"])
            })
            .map(|(_, _, event)| format!("{event}\n"))
            .collect();
        *seen = self.revision;
        (lines, false)
    }
}

impl Query {
    fn selects(&self, object: &Value) -> bool {
        let meta = &object["metadata"];
        self.name.as_ref().is_none_or(|name| meta["name"] == **name)
            && self.labels.as_ref().is_none_or(|labels| {
                let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
                pairs.all(|(label, value)| meta["labels"][label] == value)
            })
    }
}

fn kind_of(plural: &str) -> &'static str {
    match plural {
        "endpoints" => "Endpoints",
        "configmaps" => "ConfigMap",
        "services" => "Service",
        _ => "Pod",
    }
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": message})
}
