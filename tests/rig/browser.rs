//! The status page in a real browser, before, during and after a real switchover: it shows what happens.
//!
//! `PGNORTH_PICTURES=folder` keeps screenshots of each moment.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::browser::{Browser, Look, Page};
use crate::support::load::Load;
use crate::support::{Dcs, Product, Rig, session, wait_until};

/// A deadline against hanging.
const SOON: Duration = Duration::from_secs(60);

pub const LOOKS: [(&str, Look); 3] = [
    ("light", look(1280, false)),
    ("dark", look(1280, true)),
    ("phone", look(390, false)),
];

/// A script that notes in `diary` what the page shows, at each change: nothing is missed, however short.
pub const DIARY: &str = r#"
window.diary = [];
// Text that is not rendered is not visible.
window.words = node => node && node.checkVisibility() ? node.innerText.replace(/\s+/g, ' ').trim() : '';
window.seen = selector => words(document.querySelector(selector));
window.now = () => ({
  contact: seen('#contact'), loss: seen('#loss'), state: seen('#state'), leader: seen('#who'), reason: seen('#why'),
  title: document.title, held: seen('#held'), oldest: seen('#oldest'), underway: seen('#underway'),
});
let last = '';
new MutationObserver(() => {
  const now = window.now();
  if (JSON.stringify(now) !== last) { last = JSON.stringify(now); window.diary.push(now); }
}).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
"#;

const fn look(width: u32, dark: bool) -> Look {
    Look {
        width,
        height: 900,
        dark,
    }
}

#[tokio::test]
async fn the_page_shows_a_switchover_while_it_happens() {
    let rig = Rig::start(Dcs::Endpoints).await;
    let mut product = Product::start(&rig, &[], &[]).await;
    product.wait_until_writable(SOON).await;
    let load = Load::start(product.address(), 4).await;
    let idle = join_all((0..3).map(|_| session(product.address()))).await;
    let browser = Browser::start(rig.folder()).await;
    let origin = format!("http://{}/", product.admin());
    let pages = join_all(LOOKS.map(|(_, look)| browser.open(&origin, look, DIARY))).await;

    before(&pages).await;
    keep(&pages, "1-before").await;
    let switchover = rig.switchover(Some("patronidemo-1"));
    tokio::join!(switchover, during(&pages));
    after(&pages).await;
    rig.wait_until_whole(SOON).await;
    for page in &pages {
        shows(page, "three members, one of them the leader", async || {
            whole(page).await
        })
        .await;
    }
    keep(&pages, "3-after").await;
    let reasons = reasons(&product);
    for (page, (name, look)) in pages.iter().zip(LOOKS) {
        told_the_switchover(page, &reasons).await;
        is_well_made(page, look, name).await;
        let strangers: Vec<_> = page
            .requests()
            .into_iter()
            .filter(|url| !is_own(url, &origin))
            .collect();
        assert!(strangers.is_empty(), "{name}: asked for {strangers:?}");
        assert!(page.requests().contains(&format!("{origin}status/events")), "{name}");
        assert!(page.console().is_empty(), "{name}: {:?}", page.console());
    }
    load.finish().await;
    drop(idle);
    product.signal(Signal::KILL);
    for page in &pages {
        shows(page, "that contact is lost", async || {
            let now = page.evaluate("now()").await;
            let lost = now["loss"].as_str()?.starts_with("No contact with pgnorth for ");
            let known = now["contact"] == "no contact" && now["leader"] == "patronidemo-1";
            (lost && known && now["title"] == "No contact – pgnorth").then_some(())
        })
        .await;
    }
    keep(&pages, "4-lost").await;
}

async fn before(pages: &[Page]) {
    for page in pages {
        shows(page, "who leads", async || {
            let now = page.evaluate("now()").await;
            let routing = now["state"] == "✓ Routing: new clients go to the leader";
            let titled = now["title"] == "✓ Routing patronidemo-0 – pgnorth";
            (routing && titled && now["leader"] == "patronidemo-0" && now["contact"] == "live").then_some(())
        })
        .await;
        shows(page, "three members, one of them the leader", async || {
            whole(page).await
        })
        .await;
        let why = page.evaluate("seen('#why')").await;
        assert_eq!(
            why,
            "Because patronidemo-0 holds the leader lock and says that it is a running primary."
        );
        let lock = page.evaluate("seen('#lock')").await;
        let lock = lock.as_str().unwrap();
        assert!(
            lock.starts_with("Lock of patronidemo-0, renewed ") && lock.contains(" of 20 s left"),
            "{lock}"
        );
        assert_eq!(page.evaluate("seen('#none')").await, "None since this process started.");
        let sources = page.evaluate("seen('#sources')").await;
        let sources = sources.as_str().unwrap();
        assert!(
            sources.contains("kubernetes") && sources.contains("patroni"),
            "{sources}"
        );
    }
}

/// Waits until each page has shown held clients, and takes the pictures of that moment.
async fn during(pages: &[Page]) {
    join_all(pages.iter().map(|page| {
        shows(page, "held clients", async || {
            let diary = page.evaluate("diary").await;
            diary.as_array().unwrap().iter().any(is_hold).then_some(())
        })
    }))
    .await;
    keep(pages, "2-during").await;
}

async fn after(pages: &[Page]) {
    for page in pages {
        shows(page, "the new leader", async || {
            let now = page.evaluate("now()").await;
            let routing = now["state"] == "✓ Routing: new clients go to the leader";
            (routing && now["leader"] == "patronidemo-1" && now["held"] == "0" && now["underway"] == "").then_some(())
        })
        .await;
        shows(page, "the change in its timeline", async || {
            let past = page.evaluate("seen('#past')").await;
            let parts = [
                "patronidemo-0 → patronidemo-1, writable after ",
                "until the lock moved ",
                "promotion ",
                "first session ",
                " waited, at most ",
                "First sign: ",
            ];
            parts
                .iter()
                .all(|part| past.as_str().unwrap().contains(part))
                .then_some(())
        })
        .await;
    }
}

/// Checks that the table has three members, and that the member in the head is the primary and marked as the leader.
async fn whole(page: &Page) -> Option<()> {
    let rows = page
        .evaluate("[...document.querySelectorAll('#members tr')].map(words)")
        .await;
    let rows: Vec<String> = serde_json::from_value(rows).unwrap();
    let leader = page.evaluate("seen('#who')").await;
    let leader = leader.as_str()?;
    let leads = |row: &&String| row.starts_with(&format!("{leader} leader 10.")) && row.contains(" primary running ");
    let follows = |row: &&String| row.starts_with("patronidemo-") && row.contains(" replica running ");
    let leaders = rows.iter().filter(leads).count();
    let replicas = rows.iter().filter(follows).count();
    (rows.len() == 3 && leaders == 1 && replicas == 2).then_some(())
}

fn is_hold(now: &Value) -> bool {
    let held = now["held"].as_str().and_then(|held| held.parse().ok()).unwrap_or(0);
    now["state"] == "‖ Holding: new clients wait" && held > 0 && now["oldest"] != "–"
}

/// Returns every sentence with which pgnorth held clients, from its log.
fn reasons(product: &Product) -> BTreeSet<String> {
    let events = product.events().into_iter();
    let holding = events.filter(|event| {
        let message = event["fields"]["message"].as_str().unwrap_or_default();
        message.contains("holding new clients")
    });
    let reasons = holding.filter_map(|event| Some(format!("Because {}.", event["fields"]["reason"].as_str()?)));
    reasons.collect()
}

/// Checks what the page showed meanwhile: a hold with the log's reasons, clients that wait, and a change under way.
async fn told_the_switchover(page: &Page, reasons: &BTreeSet<String>) {
    let diary = page.evaluate("diary").await;
    let diary = diary.as_array().unwrap();
    let holds: Vec<_> = diary.iter().filter(|now| is_hold(now)).collect();
    assert!(!holds.is_empty(), "{diary:?}");
    // The log leaves out a reason that differs from the last one only in its details; the page shows each.
    let logged = |hold: &Value| hold["reason"].as_str().is_some_and(|reason| reasons.contains(reason));
    assert!(holds.iter().any(|hold| logged(hold)), "{holds:?}, none in {reasons:?}");
    for hold in holds {
        assert!(
            hold["reason"].as_str().unwrap().starts_with("Because patronidemo-") || logged(hold),
            "{hold}"
        );
        let underway = hold["underway"].as_str().unwrap();
        assert!(
            underway.starts_with("A change of leader may be under way, for "),
            "{underway}"
        );
        assert_eq!((&hold["loss"], &hold["contact"]), (&"".into(), &"live".into()));
    }
}

/// Checks that nothing is wider than the window, and that the page has the requested colours.
async fn is_well_made(page: &Page, look: Look, name: &str) {
    let width = page.evaluate("document.documentElement.scrollWidth").await;
    assert_eq!(width, look.width, "{name}: it has to be scrolled sideways");
    let ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 128";
    assert_eq!(page.evaluate(ground).await, look.dark, "{name}");
}

/// Returns true for the page, the URLs that it requests, and an icon that it drew itself.
fn is_own(url: &str, origin: &str) -> bool {
    url.starts_with(origin) || url.starts_with("data:")
}

/// Waits until the page fulfils the condition; otherwise panics with all that it shows.
async fn shows(page: &Page, what: &str, is_it: impl AsyncFnMut() -> Option<()>) {
    let result = tokio::time::timeout(SOON, wait_until(what, 2 * SOON, is_it)).await;
    if result.is_err() {
        panic!(
            "{what} is not shown:\n{}",
            page.evaluate("document.body.innerText").await
        );
    }
}

async fn keep(pages: &[Page], moment: &str) {
    let Some(folder) = std::env::var_os("PGNORTH_PICTURES").map(PathBuf::from) else {
        return;
    };
    let pictures = join_all(pages.iter().map(Page::picture)).await;
    fs::create_dir_all(&folder).expect("create the folder for pictures");
    for (picture, (name, _)) in pictures.into_iter().zip(LOOKS) {
        fs::write(folder.join(format!("{moment}-{name}.png")), picture).expect("write a picture");
    }
}
