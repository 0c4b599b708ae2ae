//! A delay line for kernels without netem: a process that takes packets from one TUN device and gives them to another
//! after a while, in both directions. The process is this program, started again by [`start`].

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::process::Process;
use crate::world::folder;

/// The devices.
pub const NEAR: &str = "bench-near";
pub const FAR: &str = "bench-far";
/// The option that makes this program the process, with the delay in microseconds.
pub const OPTION: &str = "--delay-line";

/// Opens both devices as standard input and output, which takes an ioctl, and becomes the given program.
const OPEN: &str = r#"
import fcntl, os, struct, sys
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
for descriptor, name in enumerate(sys.argv[1:3]):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    os.dup2(device, descriptor)
os.execv(sys.argv[3], sys.argv[3:])
"#;

/// Longest packet: the devices' MTU is 1500.
const LONGEST: usize = 2048;
/// Packets that are taken at once, so that due ones of the other direction do not wait.
const BATCH: usize = 64;

/// One direction: packets, each with the time at which it is due.
type Queue = VecDeque<(Instant, Vec<u8>)>;

/// Starts the process. The devices exist some time later, and vanish with it. The process has a real-time priority, so
/// that a delay is not lengthened by those whose packets it carries.
pub fn start(delay: Duration) -> io::Result<Process> {
    let program = std::env::current_exe()?;
    let mut command = Command::new("chrt");
    command.args(["--fifo", "10", "/usr/bin/python3", "-c", OPEN, NEAR, FAR]);
    command.arg(program).args([OPTION, &delay.as_micros().to_string()]);
    Ok(Process::start("delay line", command, &folder().join("delay-line.log")))
}

/// Carries packets for ever, each for `delay`.
pub fn carry(delay: Duration) -> io::Result<()> {
    let mut devices = [
        File::from(io::stdin().as_fd().try_clone_to_owned()?),
        File::from(io::stdout().as_fd().try_clone_to_owned()?),
    ];
    let mut queues = [Queue::new(), Queue::new()];
    let mut buffer = [0; LONGEST];
    loop {
        wait(&devices, queues.iter().filter_map(|queue| Some(queue.front()?.0)).min())?;
        for side in [0, 1] {
            for _ in 0..BATCH {
                match devices[side].read(&mut buffer) {
                    Ok(length) => queues[side].push_back((Instant::now() + delay, buffer[..length].to_vec())),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            while let Some((_, packet)) = queues[side].pop_front_if(|(due, _)| *due <= Instant::now()) {
                // A packet that the other device does not take is lost, as on a network.
                let _lost = devices[1 - side].write(&packet);
            }
        }
    }
}

/// Waits for a packet from either device, or until one is due.
fn wait(devices: &[File; 2], due: Option<Instant>) -> io::Result<()> {
    let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
    let timeout = timeout.map(|time| Timespec {
        tv_sec: time.as_secs().cast_signed(),
        tv_nsec: time.subsec_nanos().into(),
    });
    let [near, far] = devices;
    let mut both = [PollFd::new(near, PollFlags::IN), PollFd::new(far, PollFlags::IN)];
    match poll(&mut both, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
