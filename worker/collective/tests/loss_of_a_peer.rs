//! A rank that is gone or stands still must cost the others an error, never a hang: the coordinator
//! voids the attempt and forms a new generation in the same processes.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use medevo_collective::{Collective, Gloo, InProcess, MemoryStore, Rendezvous};
use tch::{Device, Kind, Tensor};

const DIR: &str = "MEDEVO_TEST_RENDEZVOUS";

/// A rendezvous between processes: a file for each key.
struct Folder(PathBuf);

impl Folder {
    fn path(&self, key: &str) -> PathBuf {
        self.0.join(key.replace('/', "%"))
    }
}

impl Rendezvous for Folder {
    fn set(&self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(value)?;
        file.persist(self.path(key))?;
        Ok(())
    }

    fn get(&self, key: &str, deadline: Instant) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Ok(value) = std::fs::read(self.path(key)) {
                return Ok(value);
            }
            anyhow::ensure!(Instant::now() < deadline, "nobody set {key} in time");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn add(&self, key: &str, _delta: i64) -> anyhow::Result<i64> {
        anyhow::bail!("no counter {key} is needed here")
    }

    fn check(&self, keys: &[&str]) -> anyhow::Result<bool> {
        Ok(keys.iter().all(|key| self.path(key).exists()))
    }
}

fn reduce(group: &mut Gloo) -> Result<f64, medevo_collective::CollectiveError> {
    let mut t = Tensor::ones([1 << 16], (Kind::Float, Device::Cpu));
    group.all_reduce_sum(&mut t)?;
    Ok(t.double_value(&[0]))
}

/// Rank 2 of the next test, in a process of its own; does nothing when run by itself.
#[test]
fn peer_process() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = Arc::new(Folder(PathBuf::from(dir)));
    let mut group =
        Gloo::form(store, "1", 2, 3, "127.0.0.1", Duration::from_secs(20)).expect("forms");
    reduce(&mut group).expect("the first operation succeeds");
    println!("\nREDUCED");
    // Waits to be killed; ends by itself if the test is gone.
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn start_peer(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "peer_process", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn killed_peer_is_an_error_within_seconds_and_a_smaller_group_forms() {
    let dir = tempfile::tempdir().unwrap();
    let mut peer = start_peer(dir.path());
    let store: Arc<dyn Rendezvous> = Arc::new(Folder(dir.path().to_path_buf()));
    let form = |prefix: &'static str, rank: usize, world: usize| {
        let store = Arc::clone(&store);
        thread::spawn(move || {
            let mut group =
                Gloo::form(store, prefix, rank, world, "127.0.0.1", Duration::from_secs(20))?;
            assert_eq!(reduce(&mut group)?, world as f64);
            Ok::<_, medevo_collective::CollectiveError>(group)
        })
    };
    let groups: Vec<_> = [0, 1].map(|rank| form("1", rank, 3)).into_iter().collect();
    let groups: Vec<Gloo> = groups.into_iter().map(|t| t.join().unwrap().unwrap()).collect();
    let lines = BufReader::new(peer.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line == "REDUCED"));
    peer.kill().unwrap();
    peer.wait().unwrap();

    let killed = Instant::now();
    let threads: Vec<_> = groups
        .into_iter()
        .map(|mut group| {
            thread::spawn(move || {
                let first = reduce(&mut group).unwrap_err();
                let second = group.barrier().unwrap_err();
                (first, second)
            })
        })
        .collect();
    for thread in threads {
        let (first, second) = thread.join().unwrap();
        assert_eq!(first.operation, "all_reduce");
        assert!(second.message.contains("form a new one"), "{second}");
    }
    // Well below the timeout of 20 s: the loss itself is noticed.
    assert!(killed.elapsed() < Duration::from_secs(5), "took {:?}", killed.elapsed());

    for thread in [0, 1].map(|rank| form("2", rank, 2)) {
        thread.join().unwrap().unwrap();
    }
}

#[test]
fn peer_that_stands_still_is_an_error_at_the_timeout() {
    let store: Arc<dyn Rendezvous> = Arc::new(MemoryStore::new());
    let timeout = Duration::from_millis(1500);
    let other = Arc::clone(&store);
    let still = thread::spawn(move || Gloo::form(other, "1", 1, 2, "127.0.0.1", timeout).unwrap());
    let mut group = Gloo::form(store, "1", 0, 2, "127.0.0.1", timeout).unwrap();
    let _alive_but_silent = still.join().unwrap();
    let start = Instant::now();
    assert!(reduce(&mut group).is_err());
    assert!(start.elapsed() < 4 * timeout, "took {:?}", start.elapsed());
}

#[test]
fn forming_without_all_ranks_fails_at_the_timeout() {
    let start = Instant::now();
    let timeout = Duration::from_millis(500);
    let error = Gloo::form(Arc::new(MemoryStore::new()), "1", 0, 2, "127.0.0.1", timeout)
        .err()
        .expect("rank 1 never comes");
    assert_eq!(error.operation, "form");
    assert!(error.message.contains("in time"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn bad_rank_or_address_is_refused_with_a_sentence() {
    let form = |rank, address: &str| {
        let store = Arc::new(MemoryStore::new());
        Gloo::form(store, "1", rank, 2, address, Duration::from_millis(200)).err().expect("refused")
    };
    assert!(form(2, "127.0.0.1").message.contains("rank 2"));
    assert!(form(0, "192.0.2.1").message.contains("192.0.2.1"));
    assert!(form(0, "a\0b").message.contains("zero byte"));
}

#[test]
fn rendezvous_that_refuses_or_panics_is_an_error_on_this_side() {
    struct Refuses(bool);
    impl Rendezvous for Refuses {
        fn set(&self, _: &str, _: &[u8]) -> anyhow::Result<()> {
            assert!(!self.0, "on purpose");
            anyhow::bail!("the report belongs to an earlier generation")
        }
        fn get(&self, _: &str, _: Instant) -> anyhow::Result<Vec<u8>> {
            anyhow::bail!("refused")
        }
        fn add(&self, _: &str, _: i64) -> anyhow::Result<i64> {
            anyhow::bail!("refused")
        }
        fn check(&self, _: &[&str]) -> anyhow::Result<bool> {
            anyhow::bail!("refused")
        }
    }
    let form = |panics| {
        Gloo::form(Arc::new(Refuses(panics)), "1", 0, 2, "127.0.0.1", Duration::from_secs(5))
            .err()
            .expect("no rendezvous, no group")
    };
    assert!(form(false).message.contains("earlier generation"));
    assert!(form(true).message.contains("panicked"));
}

#[test]
fn dropped_thread_rank_is_an_error_at_once() {
    let mut group = InProcess::group(2);
    drop(group.pop());
    let start = Instant::now();
    assert!(group[0].barrier().is_err());
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!((group[0].rank(), group[0].world()), (0, 2));
}

#[test]
fn different_operations_or_shapes_are_told_apart() {
    let mut group = InProcess::group(2);
    let mut other = group.pop().unwrap();
    let thread = thread::spawn(move || other.barrier());
    let error = group[0].all_reduce_sum(&mut Tensor::from(1.0f32)).unwrap_err();
    assert!(error.message.contains("called barrier instead"), "{error}");
    assert!(thread.join().unwrap().is_err());
}
