//! pgnorth as systemd starts it: notifications, and listeners that it opened. systemd itself is a datagram socket here.

use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::fake_cluster::{FakeCluster, Product, Session, pid_of, write_kubeconfig};
use super::fake_patroni::FakeMember;
use super::support::{HANG, within};

/// The socket that NOTIFY_SOCKET names.
struct Systemd {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Systemd {
    fn new() -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        Self { socket, folder }
    }

    /// Waits for the next notification with this beginning.
    fn hears(&self, beginning: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let count = self.socket.recv(&mut buffer).expect(beginning);
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if text.starts_with(beginning) {
                return text;
            }
        }
    }
}

async fn leader() -> FakeMember {
    let member = FakeMember::start("a").await;
    member.is_primary(1);
    member.lists(&[&member]);
    member
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_of_start_reload_main_process_and_stop() {
    let (member, systemd) = (leader().await, Systemd::new());
    let path = systemd.folder.path().join("notify");
    let variables = [
        ("NOTIFY_SOCKET", path.as_os_str()),
        ("WATCHDOG_USEC", "200000".as_ref()),
        // Of another process: systemd does not watch this one.
        ("WATCHDOG_PID", "1".as_ref()),
    ];
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_pgnorth"));
    let product = Product::start_program(program, &variables, &[&member], &["--lame-duck", "0s"]).await;
    systemd.hears("READY=1\nSTATUS=");
    systemd.hears("STATUS=routing to a, 0 sessions");
    product.gets(Signal::HUP);
    let reloading = systemd.hears("RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    let main = systemd.hears("MAINPID=");
    let pid: u32 = main["MAINPID=".len()..].parse().unwrap();
    assert_eq!(product.successors(), [pid]);
    // The successor's: the only one that may send it by now.
    let ready = systemd.hears("READY=1");
    assert!(ready.contains("routing to a"), "{ready}");
    // WATCHDOG_PID was that of one process, and the successor is watched.
    systemd.hears("WATCHDOG=1");
    kill_process(pid_of(pid), Signal::TERM).unwrap();
    systemd.hears("STOPPING=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_ends_for_systemd_too() {
    let (member, systemd) = (leader().await, Systemd::new());
    let path = systemd.folder.path().join("notify");
    let variables = [("NOTIFY_SOCKET", path.as_os_str())];
    let folder = tempfile::TempDir::new().unwrap();
    let program = folder.path().join("pgnorth");
    std::fs::copy(env!("CARGO_BIN_EXE_pgnorth"), &program).unwrap();
    let product = Product::start_program(&program, &variables, &[&member], &[]).await;
    systemd.hears("READY=1");
    std::fs::remove_file(&program).unwrap();
    product.gets(Signal::HUP);
    systemd.hears("RELOADING=1");
    systemd.hears("READY=1");
    product.session().await;
}

/// pgnorth with this listener as systemd passes it: as descriptor 3, with its own process id in LISTEN_PID. The shell is
/// what sets them, because it becomes pgnorth.
fn activated(listener: &TcpListener, member: &FakeMember, flags: &str) -> Child {
    let stdin: OwnedFd = listener.try_clone().unwrap().into();
    let script = format!(
        "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec '{}' --patroni http://{} --admin 127.0.0.1:0 \
         --lame-duck 0s --drain 0s {flags}",
        env!("CARGO_BIN_EXE_pgnorth"),
        member.rest
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env_clear().stdin(Stdio::from(stdin));
    command.stderr(Stdio::piped()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_wait_over_a_restart_if_systemd_keeps_the_listener() {
    let member = leader().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let flags = format!("--listen {address}");
    let mut first = activated(&listener, &member, &flags);
    let connect = async || {
        let mut stream = within("a client connects", TcpStream::connect(address)).await.unwrap();
        stream.write_all(b"?").await.unwrap();
        stream
    };
    let mut session = Session::of(connect().await).await;
    session.lives().await;
    drop(session);
    kill_process(pid_of(first.id()), Signal::TERM).unwrap();
    within("the first process ends", ended(&mut first)).await;
    let waiting = connect().await;
    let mut second = activated(&listener, &member, &flags);
    assert_eq!(Session::of(waiting).await.member, "a");
    second.kill().unwrap();
    second.wait().unwrap();
}

async fn ended(child: &mut Child) {
    while child.try_wait().unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_no_setting_names_is_an_error() {
    let member = leader().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = activated(&listener, &member, "--listen 127.0.0.1:0");
    within("pgnorth ends", ended(&mut child)).await;
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let address = listener.local_addr().unwrap().to_string();
    for words in [address.as_str(), "ListenStream="] {
        assert!(text.contains(words), "{words} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watcher_and_publisher_report_to_systemd() {
    let cluster = FakeCluster::start(20).await;
    let folder = tempfile::TempDir::new().unwrap();
    let kubeconfig = write_kubeconfig(folder.path(), cluster.api.address);
    for command in [&["watch"][..], &["publish", "--service", "primary", "--endpoints"]] {
        let systemd = Systemd::new();
        let mut pgnorth = Command::new(env!("CARGO_BIN_EXE_pgnorth"));
        pgnorth.args(command).args(["--scope", "pg", "--admin", "127.0.0.1:0"]);
        pgnorth.env_clear().env("KUBECONFIG", &kubeconfig);
        pgnorth.env("NOTIFY_SOCKET", systemd.folder.path().join("notify"));
        pgnorth.env("WATCHDOG_USEC", "200000").stderr(Stdio::null());
        let mut pgnorth = pgnorth.spawn().unwrap();
        systemd.hears("READY=1\nSTATUS=no primary");
        systemd.hears("STATUS=the primary is a");
        systemd.hears("WATCHDOG=1");
        kill_process(pid_of(pgnorth.id()), Signal::TERM).unwrap();
        systemd.hears("STOPPING=1");
        assert!(pgnorth.wait().unwrap().success(), "{command:?}");
    }
}

/// Returns what a pgnorth with these arguments writes to a journal, which is a socket here. `own` is false if its variable
/// JOURNAL_STREAM is that of another stream.
fn journalled(arguments: &[&str], own: bool) -> String {
    let (mut journal, stderr) = UnixStream::pair().unwrap();
    let stderr = OwnedFd::from(stderr);
    let metadata = File::from(stderr.try_clone().unwrap()).metadata().unwrap();
    let inode = metadata.st_ino() + u64::from(!own);
    let mut pgnorth = Command::new(env!("CARGO_BIN_EXE_pgnorth"));
    pgnorth.args(arguments).env_clear();
    pgnorth.env("JOURNAL_STREAM", format!("{}:{inode}", metadata.st_dev()));
    let mut child = pgnorth.stderr(stderr).stdout(Stdio::null()).spawn().unwrap();
    // The command holds the other end, too.
    drop(pgnorth);
    let mut text = String::new();
    journal.set_read_timeout(Some(HANG)).unwrap();
    journal.read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    text
}

#[test]
fn the_journal_gets_priorities() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = taken.local_addr().unwrap().to_string();
    let arguments = ["watch", "--patroni", "http://127.0.0.1:1", "--admin", &admin];
    let text = journalled(&arguments, true);
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("<6>20") && lines[0].contains("pgnorth watch starts"),
        "{text}"
    );
    let last = lines.last().unwrap();
    assert!(last.starts_with("<3>20") && last.contains("pgnorth ends"), "{text}");

    let text = journalled(&["--hold", "x"], true);
    assert!(
        text.lines().count() > 3 && text.lines().all(|line| line.starts_with("<3>")),
        "{text}"
    );
    let text = journalled(&arguments, false);
    assert!(text.lines().all(|line| line.starts_with("20")), "{text}");
}
