//! Serves the admin port on a separate thread, so that its requests take no time from discovery.

use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, Facts};

/// Starts the thread, which serves once `begin` is cancelled. The returned future completes when the thread no longer
/// serves: after `stop` is cancelled, or on an error.
pub(super) fn start(
    admin: Admin,
    facts: Facts,
    begin: CancellationToken,
    stop: CancellationToken,
) -> Result<impl Future<Output = Result<()>>> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the admin thread")?;
    let (sender, outcome) = oneshot::channel();
    thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            let served = runtime.block_on(async {
                tokio::select! {
                    () = begin.cancelled() => admin.run(Arc::new(facts), stop).await,
                    () = stop.cancelled() => Ok(()),
                }
            });
            // A name look-up or a file that hangs must not keep the process alive.
            runtime.shutdown_background();
            let _process_may_be_ending = sender.send(served);
        })
        .context("cannot start the admin thread")?;
    Ok(async { Ok(outcome.await.map_err(|_| anyhow!("the admin thread panicked"))??) })
}
