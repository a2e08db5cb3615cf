//! `medevo-worker probe`: what this machine has, and what is between it and a doctor's.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpStream, ToSocketAddrs},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, ensure};
use medevo_collective::{load_libtorch_cuda, probe};
use medevo_types::probe::{BANDWIDTH_BYTES, CLOCK_ASKS, Gpu, Link, MEETING_FILE, Meeting, Probe};
use tch::{Cuda, Kind, Tensor};

use crate::cli::ProbeArgs;

/// libtorch that tch 0.24 is made for.
const TORCH: &str = "2.11.0";
/// How long any one exchange with the doctor may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks, and prints what it finds or leaves it where the doctor waits for it.
///
/// # Errors
/// libtorch cannot add, or the doctor is not reached.
pub fn probe(args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let mut found = look();
    if let Some(dir) = &args.meet {
        found.link = Some(meet(dir)?);
        let file = dir.join(format!("{}.json", found.host));
        let beside = dir.join(format!(".{}.partial", found.host));
        fs::write(&beside, serde_json::to_vec(&found)?)
            .and_then(|()| fs::rename(&beside, &file))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    println!("{}", serde_json::to_string_pretty(&found)?);
    Ok(ExitCode::SUCCESS)
}

fn look() -> Probe {
    let gpus = gpus();
    let (torch, torch_cuda) = torch();
    Probe {
        host: host(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        torch,
        torch_wanted: TORCH.to_owned(),
        torch_cuda,
        driver: driver(),
        driver_cuda: probe::driver_cuda(),
        nccl: probe::nccl_version(),
        no_gpu: gpus.as_ref().err().cloned(),
        gpus: gpus.unwrap_or_default(),
        link: None,
    }
}

/// The GPUs, each of which has added two numbers.
fn gpus() -> Result<Vec<Gpu>, String> {
    load_libtorch_cuda()?;
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if count == 0 {
        return Err("libtorch finds no GPU: is NVIDIA's driver installed, and does CUDA_VISIBLE_DEVICES hide it?"
            .to_owned());
    }
    (0..count)
        .map(|number| {
            // Free memory first: torch takes some for its own.
            let (name, memory, free) = probe::gpu(number)?;
            let two = Tensor::f_ones([2], (Kind::Float, tch::Device::Cuda(number)))
                .and_then(|ones| ones.f_sum(Kind::Float));
            match two {
                Ok(two) if two.double_value(&[]) == 2.0 => Ok(Gpu { name, memory, free }),
                Ok(_) => Err(format!("GPU {number} ({name}) adds wrongly")),
                Err(error) => Err(format!("GPU {number} ({name}) does not compute: {error}")),
            }
        })
        .collect()
}

/// Version and CUDA of the libtorch that this process has loaded, from the file that its package has beside it.
fn torch() -> (Option<String>, Option<String>) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let library = maps.lines().find_map(|line| {
        let path = line.get(line.find('/')?..)?;
        path.ends_with("/libtorch_cpu.so").then_some(path)
    });
    let text = library
        .and_then(|path| Path::new(path).parent()?.parent())
        .and_then(|package| fs::read_to_string(package.join("version.py")).ok())
        .unwrap_or_default();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        let quoted = line.split_once('=')?.1.trim().trim_matches('\'');
        (quoted != "None").then(|| quoted.to_owned())
    };
    (value("__version__"), value("cuda"))
}

/// Version of NVIDIA's kernel driver.
fn driver() -> Option<String> {
    fs::read_to_string("/sys/module/nvidia/version").ok().map(|text| text.trim().to_owned())
}

fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// Meets the doctor whose meeting lies in `dir`: compares clocks, measures the network.
fn meet(dir: &Path) -> anyhow::Result<Link> {
    let file = dir.join(MEETING_FILE);
    let text = fs::read(&file).with_context(|| {
        format!(
            "{} cannot be read here: is the directory on a file system that this machine shares with the one where \
             `medevo-coord doctor` waits?",
            file.display()
        )
    })?;
    let meeting: Meeting =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
    let mut addresses = meeting
        .address
        .to_socket_addrs()
        .with_context(|| format!("{} is not known here", meeting.address))?;
    let address = addresses.next().context("the doctor's name has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| {
        format!(
            "{} is not reached: does a firewall stand between, or is it another network?",
            meeting.address
        )
    })?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let local = stream.local_addr()?.ip().to_string();
    let mut answers = BufReader::new(stream.try_clone()?);
    writeln!(stream, "{}", meeting.nonce)?;
    ensure!(
        line(&mut answers)? == "welcome",
        "the doctor does not know this meeting: start it again"
    );
    let (mut round_trip_ms, mut clock_ahead_ms) = (f64::MAX, 0);
    for _ in 0..CLOCK_ASKS {
        let (before, began) = (now_ms(), Instant::now());
        writeln!(stream, "clock")?;
        let there: i64 = line(&mut answers)?.parse().context("the doctor's clock is no number")?;
        let took = began.elapsed().as_secs_f64() * 1000.0;
        // The quickest exchange says the most about the other clock.
        if took < round_trip_ms {
            round_trip_ms = took;
            clock_ahead_ms = there - before - (took / 2.0) as i64;
        }
    }
    let block = vec![0; 1 << 20];
    let began = Instant::now();
    writeln!(stream, "bytes")?;
    for _ in 0..BANDWIDTH_BYTES / block.len() {
        stream.write_all(&block)?;
    }
    ensure!(line(&mut answers)? == "all", "the doctor did not get all bytes");
    let bytes_per_s = BANDWIDTH_BYTES as f64 / began.elapsed().as_secs_f64();
    Ok(Link { local, clock_ahead_ms, round_trip_ms, bytes_per_s })
}

fn line(answers: &mut impl BufRead) -> anyhow::Result<String> {
    let mut text = String::new();
    answers.read_line(&mut text).context("the doctor does not answer")?;
    ensure!(!text.is_empty(), "the doctor has gone");
    Ok(text.trim_end().to_owned())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
