//! Asks members according to the plan: one request at a time for each question to each member.

use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Client, Plan, Reply, Target, sleep_until};
use crate::backoff::random;
use crate::leader::observation::Observation;
use crate::leader::probing::pacing::Pacer;

/// Prober of the members in the plan.
pub struct Prober {
    client: Client,
    plan: watch::Receiver<Plan>,
    observations: mpsc::Sender<Observation>,
}

impl Prober {
    /// Returns a prober. It asks no member until the plan has one.
    pub fn new(client: Client, plan: watch::Receiver<Plan>, observations: mpsc::Sender<Observation>) -> Self {
        Self {
            client,
            plan,
            observations,
        }
    }

    /// Asks until the plan's sender or the observations' receiver is dropped. At most one request is under way for each
    /// question to each member.
    pub async fn run(mut self) {
        let mut pacer = Pacer::default();
        let mut requests: JoinSet<Reply> = JoinSet::new();
        loop {
            let next = self.ask_the_due(&mut pacer, &mut requests);
            tokio::select! {
                changed = self.plan.changed() => if changed.is_err() { return },
                Some(reply) = requests.join_next() => {
                    // A panic in a request is a bug in pgnorth. The end of this task ends the process with an error.
                    let Ok(Reply { key, answered, claim }) = reply else { return };
                    // The plan no longer has this request. An answer from a former address is not evidence.
                    if !pacer.ended(&key, answered, Instant::now()) {
                        continue;
                    }
                    let Some(claim) = claim else { continue };
                    let observation = Observation { at: Instant::now(), claim };
                    if self.observations.send(observation).await.is_err() {
                        return;
                    }
                }
                () = sleep_until(next) => {}
            }
        }
    }

    /// Starts the requests that are due, and returns the time of the next one.
    fn ask_the_due(&mut self, pacer: &mut Pacer, requests: &mut JoinSet<Reply>) -> Option<Instant> {
        let targets = self.plan.borrow_and_update().targets.clone();
        let keys: Vec<_> = targets.iter().map(Target::key).collect();
        let plan = keys
            .iter()
            .zip(&targets)
            .map(|(key, target)| (key.as_str(), target.urgency));
        let (due, next) = pacer.due(plan, Instant::now(), random);
        for place in due {
            let (client, target) = (self.client.clone(), targets[place].clone());
            requests.spawn(async move { target.ask(&client).await });
        }
        next
    }
}
