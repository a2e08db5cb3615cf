//! Staying with a run until it is over: lost workers, signals, the progress line.

use std::time::Duration;

use medevo_core::api::Outcome;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::{Children, Ended, Signals, alive::Alive};
use crate::{driver::Handle, progress::Progress, say::complain};

/// Redraw interval of the progress line.
const REDRAW: Duration = Duration::from_millis(200);

/// How long a driver that is to end at once may still wait for its store.
pub(super) const AT_ONCE: Duration = Duration::from_secs(5);
/// Longer than any run.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Watches the run until it is over, and tells how it ended.
pub(super) async fn attend(
    driver: &Handle,
    children: &mut Children,
    signals: &mut Signals,
    local: bool,
) -> Outcome {
    let mut over = driver.over();
    let status = driver.status();
    let mut progress = Progress::stdout();
    let mut redraw = interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut asked = false;
    let mut end = Instant::now() + FAR;
    let (alive, mut shown_at) = (Alive::from_env(), 0);
    loop {
        if let Some(outcome) = over.borrow_and_update().clone() {
            progress.finish();
            return outcome;
        }
        tokio::select! {
            changed = over.changed() => if changed.is_err() {
                progress.finish();
                let reason = "the driver broke off; see the log, then resume".into();
                return Outcome::Failed { reason };
            },
            ended = children.ended() => {
                progress.finish();
                lost(driver, &ended).await;
                if local && children.running() == 0 {
                    nobody_left(driver, &ended).await;
                }
            }
            ask = signals.next() => {
                progress.finish();
                if ask.at_once || asked && ask.counts {
                    end = end.min(Instant::now() + AT_ONCE);
                    let again = if ask.at_once { "" } else { "a second " };
                    driver.stop(format!("{again}{}", ask.by)).await;
                } else {
                    let at_once = if ask.counts { "again" } else { "Ctrl-C, twice" };
                    complain(format!(
                        "{}: stopping after this step, with a checkpoint ({at_once}: at once)",
                        ask.by
                    ));
                    // The core keeps the first reason.
                    driver.drain(ask.by).await;
                }
                asked |= ask.counts;
            }
            _ = redraw.tick() => {
                let status = status.borrow();
                progress.show(&status);
                // Only a driver whose loop turns brings a later one.
                if status.updated_at != shown_at {
                    shown_at = status.updated_at;
                    alive.touch();
                }
            }
            () = sleep_until(end) => {
                progress.finish();
                let reason = "while its driver waited for something".into();
                return Outcome::Stopped { reason };
            }
        }
    }
}

/// A worker's process ended while the run goes on: the core hears at once, people too.
async fn lost(driver: &Handle, ended: &Ended) {
    let words = match ended.last_lines.as_str() {
        "" => String::new(),
        lines => format!("; its last words:\n{lines}"),
    };
    complain(format!("worker {} ended ({}){words}", ended.worker, ended.how));
    if let Some(tag) = driver.admission().latest(&ended.worker) {
        driver.gone(tag).await;
    }
}

/// No worker process of this machine is left. Unless workers from elsewhere take part, waiting for new
/// ones until the deadline would only hide the reason.
async fn nobody_left(driver: &Handle, last: &Ended) {
    // The core knows of the loss by now, so the next view that comes is without the lost worker.
    let mut status = driver.status();
    status.borrow_and_update();
    if timeout(Duration::from_secs(2), status.changed()).await.is_err() {
        tracing::warn!("the driver shows no status");
    }
    if driver.over().borrow().is_none() && status.borrow().view.workers.is_empty() {
        let words = last.last_lines.lines().last().unwrap_or("it left no words");
        driver
            .abort(format!(
                "all workers have ended; the last was {} ({}): {words}",
                last.worker, last.how
            ))
            .await;
    }
}
