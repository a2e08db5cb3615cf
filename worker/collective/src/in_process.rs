//! A fake for tests: ranks are threads of one process and exchange copies over channels.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    time::{Duration, Instant},
};

use tch::Tensor;

use crate::contract::{Collective, CollectiveError, check_parts, check_root};

/// Messages that may wait for a slower rank; one operation sends at most one to each.
const DEPTH: usize = 4;

/// One rank of a group of threads.
///
/// Sums are taken in the order of the ranks, so they are bit-equal everywhere. Dropping a rank makes
/// its peers' next operation fail at once; one that stands still makes it fail at the timeout.
pub struct InProcess {
    rank: usize,
    world: usize,
    timeout: Duration,
    /// To each rank, the own one included (unused).
    to: Vec<SyncSender<Message>>,
    /// From each rank.
    from: Vec<Receiver<Message>>,
    broken: bool,
}

/// What one rank brings to one operation.
struct Message {
    operation: &'static str,
    tensor: Tensor,
}

impl InProcess {
    /// A group of `n` ranks with a timeout of 30 seconds for each operation.
    #[must_use]
    pub fn group(n: usize) -> Vec<Self> {
        Self::group_with_timeout(n, Duration::from_secs(30))
    }

    /// A group of `n` ranks whose operations each take at most `timeout`.
    #[must_use]
    pub fn group_with_timeout(n: usize, timeout: Duration) -> Vec<Self> {
        let mut senders: Vec<Vec<SyncSender<Message>>> = (0..n).map(|_| Vec::new()).collect();
        let mut group = Vec::with_capacity(n);
        for rank in 0..n {
            let mut from = Vec::with_capacity(n);
            for sender in &mut senders {
                let (to, receiver) = sync_channel(DEPTH);
                sender.push(to);
                from.push(receiver);
            }
            group.push(Self { rank, world: n, timeout, to: Vec::new(), from, broken: false });
        }
        for (member, to) in group.iter_mut().zip(senders) {
            member.to = to;
        }
        group
    }

    /// Gives everyone this rank's tensor and returns everyone's, by rank.
    fn exchange(
        &mut self,
        operation: &'static str,
        tensor: &Tensor,
    ) -> Result<Vec<Tensor>, CollectiveError> {
        if self.broken {
            return Err(CollectiveError::new(
                operation,
                "the communicator is gone after an earlier error; form a new one",
            ));
        }
        let result = self.try_exchange(operation, tensor);
        if result.is_err() {
            self.broken = true;
            // Peers that wait for this rank hear of it now instead of at their timeout.
            self.to.clear();
            self.from.clear();
        }
        result
    }

    fn try_exchange(
        &self,
        operation: &'static str,
        tensor: &Tensor,
    ) -> Result<Vec<Tensor>, CollectiveError> {
        let fail = |message: String| Err(CollectiveError::new(operation, message));
        let deadline = Instant::now() + self.timeout;
        let mine = tch::no_grad(|| tensor.detach().copy());
        for (rank, to) in self.to.iter().enumerate().filter(|(rank, _)| *rank != self.rank) {
            // A full channel means a peer that is several operations behind, which a finished
            // operation rules out.
            match to.try_send(Message { operation, tensor: mine.copy() }) {
                Ok(()) => {}
                Err(TrySendError::Disconnected(_)) => return fail(format!("rank {rank} is gone")),
                Err(TrySendError::Full(_)) => return fail(format!("rank {rank} does not keep up")),
            }
        }
        let mut all = Vec::with_capacity(self.from.len());
        for (rank, from) in self.from.iter().enumerate() {
            if rank == self.rank {
                all.push(mine.copy());
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let theirs = match from.recv_timeout(left) {
                Ok(message) => message,
                Err(RecvTimeoutError::Disconnected) => return fail(format!("rank {rank} is gone")),
                Err(RecvTimeoutError::Timeout) => {
                    return fail(format!("rank {rank} did not answer within {:?}", self.timeout));
                }
            };
            if theirs.operation != operation {
                return fail(format!("rank {rank} called {} instead", theirs.operation));
            }
            if theirs.tensor.size() != mine.size() || theirs.tensor.kind() != mine.kind() {
                return fail(format!(
                    "rank {rank} brought {:?} {:?}, this rank {:?} {:?}",
                    theirs.tensor.kind(),
                    theirs.tensor.size(),
                    mine.kind(),
                    mine.size()
                ));
            }
            all.push(theirs.tensor);
        }
        Ok(all)
    }
}

impl Collective for InProcess {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        // Not the channels' number: those are cleared after an error.
        self.world
    }

    fn all_reduce_sum(&mut self, t: &mut Tensor) -> Result<(), CollectiveError> {
        let all = self.exchange("all_reduce", t)?;
        tch::no_grad(|| t.copy_(&sum(&all)));
        Ok(())
    }

    fn broadcast(&mut self, t: &mut Tensor, root: usize) -> Result<(), CollectiveError> {
        check_root(root, self.world)?;
        let all = self.exchange("broadcast", t)?;
        tch::no_grad(|| t.copy_(&all[root]));
        Ok(())
    }

    fn all_gather(&mut self, t: &Tensor) -> Result<Vec<Tensor>, CollectiveError> {
        self.exchange("all_gather", t)
    }

    fn reduce_scatter_sum(
        &mut self,
        output: &mut Tensor,
        input: &Tensor,
    ) -> Result<(), CollectiveError> {
        check_parts("reduce_scatter", input, output, self.world)?;
        let all = self.exchange("reduce_scatter", input)?;
        let length = output.numel() as i64;
        let own = sum(&all).narrow(0, self.rank as i64 * length, length);
        tch::no_grad(|| output.copy_(&own));
        Ok(())
    }

    fn all_gather_into(
        &mut self,
        output: &mut Tensor,
        input: &Tensor,
    ) -> Result<(), CollectiveError> {
        check_parts("all_gather", output, input, self.world)?;
        let all = self.exchange("all_gather", input)?;
        tch::no_grad(|| output.copy_(&Tensor::cat(&all, 0)));
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.exchange("barrier", &Tensor::from(0i64)).map(drop)
    }
}

/// The sum in the order of the ranks.
fn sum(all: &[Tensor]) -> Tensor {
    tch::no_grad(|| {
        let mut sum = all[0].copy();
        for other in &all[1..] {
            sum += other;
        }
        sum
    })
}
