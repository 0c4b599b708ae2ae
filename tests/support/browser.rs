//! A real headless Chromium, driven by the DevTools protocol over a pair of pipes: no port, no websocket.
//! Each message is JSON and ends with a NUL; <https://chromedevtools.github.io/devtools-protocol/> has the methods.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Deadline of one answer of the browser, which only guards against hanging.
const ANSWER: Duration = Duration::from_secs(30);

/// A shell command that gives Chromium the pipes as file descriptors 3 and 4.
const PIPES: &str = "exec chromium \"$@\" 3<&0 4>&1 0</dev/null 1>&2";

/// Root needs `--no-sandbox`. The others keep it from using a graphics card, and from looking for updates without a
/// network.
const FLAGS: [&str; 13] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-renderer-backgrounding",
    "--remote-debugging-pipe",
];

/// A running browser. Its drop kills it.
pub struct Browser {
    link: Arc<Link>,
    _child: Child,
}

/// The colours and the size of a page.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

/// A page in a window of its own.
pub struct Page {
    link: Arc<Link>,
    session: String,
}

struct Link {
    pipe: tokio::sync::Mutex<ChildStdin>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sent: u64,
    waiting: HashMap<u64, oneshot::Sender<Value>>,
    events: Vec<Value>,
}

impl Browser {
    /// Starts it with a new profile in `folder`.
    pub async fn start(folder: &Path) -> Self {
        let log = File::create(folder.join("chromium.log")).expect("create the browser's log");
        let mut child = Command::new("sh")
            .args(["-c", PIPES, "chromium"])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", folder.join("chromium").display()))
            .env("HOME", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("start sh");
        let link = Arc::new(Link {
            pipe: tokio::sync::Mutex::new(child.stdin.take().expect("stdin is a pipe")),
            state: Mutex::default(),
        });
        tokio::spawn(link.clone().read(child.stdout.take().expect("stdout is a pipe")));
        let version = link.call(None, "Browser.getVersion", json!({})).await;
        println!("the browser is {}", version["product"]);
        Self { link, _child: child }
    }

    /// Opens a page with this look and waits until it is loaded; `script` runs before its own.
    pub async fn open(&self, url: &str, look: Look, script: &str) -> Page {
        let blank = json!({"url": "about:blank", "newWindow": true});
        let target = self.link.call(None, "Target.createTarget", blank).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.link.call(None, "Target.attachToTarget", attach).await;
        let page = Page {
            link: self.link.clone(),
            session: attached["sessionId"].as_str().expect("a session").to_owned(),
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        let Look { width, height, dark } = look;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        page.call("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        page.call("Emulation.setEmulatedMedia", media).await;
        page.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script}))
            .await;
        let opened = page.call("Page.navigate", json!({"url": url})).await;
        assert_eq!(opened["errorText"], Value::Null, "{url}");
        super::wait_until("the page is loaded", ANSWER, async || {
            page.events("Page.loadEventFired").first().map(drop)
        })
        .await;
        page
    }
}

impl Page {
    /// Returns the value of an expression in the page. It has to be JSON; a promise is awaited.
    pub async fn evaluate(&self, expression: &str) -> Value {
        let ask = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", ask).await;
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression}");
        answer["result"]["value"].take()
    }

    /// Returns the whole page as a PNG, also beyond the window's edge.
    pub async fn picture(&self) -> Vec<u8> {
        let metrics = self.call("Page.getLayoutMetrics", json!({})).await;
        let size = &metrics["cssContentSize"];
        let clip = json!({"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1});
        let ask = json!({"format": "png", "clip": clip, "captureBeyondViewport": true});
        let answer = self.call("Page.captureScreenshot", ask).await;
        STANDARD
            .decode(answer["data"].as_str().expect("a picture"))
            .expect("base64")
    }

    /// Returns every URL that the page has requested.
    pub fn requests(&self) -> Vec<String> {
        let events = self.events("Network.requestWillBeSent");
        let urls = events
            .iter()
            .map(|event| event["request"]["url"].as_str().unwrap_or_default().to_owned());
        urls.collect()
    }

    /// Returns the console's lines: uncaught exceptions, refusals by the page's policy, and messages.
    pub fn console(&self) -> Vec<Value> {
        let kinds = ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"];
        kinds.iter().flat_map(|kind| self.events(kind)).collect()
    }

    fn events(&self, method: &str) -> Vec<Value> {
        let state = self.link.state();
        let mine = state
            .events
            .iter()
            .filter(|event| event["method"] == method && event["sessionId"] == *self.session);
        mine.map(|event| event["params"].clone()).collect()
    }

    async fn call(&self, method: &str, parameters: Value) -> Value {
        self.link.call(Some(&self.session), method, parameters).await
    }
}

impl Link {
    async fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut state = self.state();
            state.sent += 1;
            let id = state.sent;
            state.waiting.insert(id, sender);
            id
        };
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let sent = self
            .pipe
            .lock()
            .await
            .write_all(format!("{message}\0").as_bytes())
            .await;
        sent.unwrap_or_else(|error| panic!("{method}: the browser does not read: {error}"));
        let answer = timeout(ANSWER, answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("{method}: the browser did not answer"));
        let mut answer = answer.unwrap_or_else(|_| panic!("{method}: the browser ended"));
        assert_eq!(answer["error"], Value::Null, "{method}");
        answer["result"].take()
    }

    /// Passes answers to the tasks that wait for them, and keeps events, until the browser ends.
    async fn read(self: Arc<Self>, pipe: ChildStdout) {
        let mut pipe = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while pipe.read_until(0, &mut bytes).await.is_ok_and(|read| read > 0) {
            let message: Value = serde_json::from_slice(&bytes[..bytes.len() - 1]).unwrap_or_default();
            bytes.clear();
            let mut state = self.state();
            match message["id"].as_u64().map(|id| state.waiting.remove(&id)) {
                // A task that no longer waits has panicked already.
                Some(waiting) => drop(waiting.map(|waiting| waiting.send(message))),
                None => state.events.push(message),
            }
        }
        self.state().waiting.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
