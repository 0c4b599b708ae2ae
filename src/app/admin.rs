//! Serves the admin port on a thread of its own: whoever reads pages, however many and how often, takes no time from discovery.

use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, Facts};

/// Starts the thread. Yields when serving has ended, which it does not before `stop`.
pub(super) fn serve(admin: Admin, facts: Facts, stop: CancellationToken) -> Result<impl Future<Output = Result<()>>> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the admin thread")?;
    let (ended, end) = oneshot::channel();
    thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            let outcome = runtime.block_on(admin.run(Arc::new(facts), stop));
            // A look-up or a file that hangs must not keep the process.
            runtime.shutdown_background();
            let _nobody_waits_any_more = ended.send(outcome);
        })
        .context("cannot start the admin thread")?;
    Ok(async { Ok(end.await.map_err(|_| anyhow!("its thread broke down"))??) })
}
