//! What a worker's binary finds on its machine, and between that machine and another: `medevo-worker probe`.

use serde::{Deserialize, Serialize};

/// The file in a meeting's directory that names the [`Meeting`].
pub const MEETING_FILE: &str = "meeting.json";
/// Bytes that a probe sends to measure the network.
pub const BANDWIDTH_BYTES: usize = 64 << 20;
/// Times that a probe asks for the other clock.
pub const CLOCK_ASKS: usize = 5;

/// Where the machines of a cluster meet a doctor. It lies in a directory that all of them should see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meeting {
    /// Where the doctor listens, HOST:PORT.
    pub address: String,
    /// Known only to who reads this very file; whoever connects shows it first.
    pub nonce: String,
}

/// What the worker's binary finds on one machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The machine's name.
    pub host: String,
    /// Version of medevo-worker.
    pub version: String,
    /// Version of the libtorch that is loaded.
    pub torch: Option<String>,
    /// The libtorch that this binary was made for.
    pub torch_wanted: String,
    /// CUDA that this libtorch was built with.
    pub torch_cuda: Option<String>,
    /// NVIDIA's driver.
    pub driver: Option<String>,
    /// The newest CUDA that the driver knows.
    pub driver_cuda: Option<String>,
    /// NCCL.
    pub nccl: Option<String>,
    /// The GPUs that libtorch sees, in its order.
    pub gpus: Vec<Gpu>,
    /// Why it sees none.
    pub no_gpu: Option<String>,
    /// What is between this machine and the doctor's.
    pub link: Option<Link>,
}

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Its memory, bytes.
    pub memory: u64,
    /// What of it nobody uses, bytes.
    pub free: u64,
}

/// What is between two machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The address that this machine is reached by on the way, without port.
    pub local: String,
    /// The doctor's clock minus this machine's, milliseconds.
    pub clock_ahead_ms: i64,
    /// A question and its answer take so long, milliseconds.
    pub round_trip_ms: f64,
    /// Bytes a second to the doctor, over one connection.
    pub bytes_per_s: f64,
}
