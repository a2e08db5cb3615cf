//! Real etcd members on this machine, in a temporary folder: started, killed, stopped, and gone with the test.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::process::signal;

/// How long a cluster may take to come up, or to have a leader again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Files of a cluster that talks TLS only.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The CA.
    pub ca: PathBuf,
    /// The members' certificate, for 127.0.0.1.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Where a member runs.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its address for clients.
    pub client: String,
    /// Its address for the other members.
    pub peer: String,
    /// What its command line starts with, such as `ip netns exec NAME`; it must become the member.
    pub run: Vec<String>,
}

impl Default for Host {
    fn default() -> Self {
        Self { client: "127.0.0.1".into(), peer: "127.0.0.1".into(), run: Vec::new() }
    }
}

/// A cluster; its processes end when it is dropped.
#[derive(Debug)]
pub struct Etcd {
    dir: tempfile::TempDir,
    members: Vec<Member>,
    tls: Option<Tls>,
}

#[derive(Debug)]
struct Member {
    child: Child,
    command: Vec<String>,
    host: String,
    client: u16,
    metrics: u16,
}

impl Etcd {
    /// One member or several, and a leader among them.
    ///
    /// # Panics
    /// When etcd is not installed or does not come up.
    #[must_use]
    pub fn start(members: usize) -> Self {
        Self::launch(&vec![Host::default(); members], None)
    }

    /// Members that ask every client for a certificate of their CA.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    #[must_use]
    pub fn start_secured(members: usize, tls: Tls) -> Self {
        Self::launch(&vec![Host::default(); members], Some(tls))
    }

    /// A member on each of these hosts.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    #[must_use]
    pub fn start_on(hosts: &[Host]) -> Self {
        Self::launch(hosts, None)
    }

    fn launch(hosts: &[Host], tls: Option<Tls>) -> Self {
        // A port that was free may be taken by the time that etcd binds it: then it says so at once.
        for _ in 0..5 {
            let mut etcd = Self {
                dir: tempfile::tempdir().expect("a temporary folder"),
                members: Vec::new(),
                tls: tls.clone(),
            };
            etcd.spawn(hosts);
            if etcd.comes_up() {
                return etcd;
            }
        }
        panic!("etcd does not come up: run ops/setup-services, and see its log");
    }

    fn spawn(&mut self, hosts: &[Host]) {
        let ports = free_ports(3 * hosts.len());
        let peer = |i: usize| format!("http://{}:{}", hosts[i].peer, ports[3 * i + 1]);
        let all: Vec<String> = (0..hosts.len()).map(|i| format!("n{i}={}", peer(i))).collect();
        let token = self.dir.path().display().to_string();
        for (i, host) in hosts.iter().enumerate() {
            let (client, metrics) = (ports[3 * i], ports[3 * i + 2]);
            let data = self.dir.path().join(format!("n{i}"));
            fs::DirBuilder::new().mode(0o700).create(&data).expect("a folder for a member");
            let scheme = if self.tls.is_some() { "https" } else { "http" };
            let client_url = format!("{scheme}://{}:{client}", host.client);
            let mut command = host.run.clone();
            command.push("etcd".into());
            let mut flag = |name: &str, value: String| {
                command.push(format!("--{name}={value}"));
            };
            flag("name", format!("n{i}"));
            flag("data-dir", data.display().to_string());
            flag("listen-client-urls", client_url.clone());
            flag("advertise-client-urls", client_url);
            flag("listen-metrics-urls", format!("http://{}:{metrics}", host.client));
            flag("listen-peer-urls", peer(i));
            flag("initial-advertise-peer-urls", peer(i));
            flag("initial-cluster", all.join(","));
            flag("initial-cluster-token", token.clone());
            flag("heartbeat-interval", "100".into());
            flag("election-timeout", "1000".into());
            flag("logger", "zap".into());
            flag("log-level", "warn".into());
            flag("log-outputs", self.dir.path().join(format!("n{i}.log")).display().to_string());
            if let Some(tls) = &self.tls {
                flag("client-cert-auth", "true".into());
                flag("trusted-ca-file", tls.ca.display().to_string());
                flag("cert-file", tls.cert.display().to_string());
                flag("key-file", tls.key.display().to_string());
            }
            let child = run(&command);
            let host = host.client.clone();
            self.members.push(Member { child, command, host, client, metrics });
        }
    }

    /// Waits until every member is healthy; `false` when one has ended.
    fn comes_up(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            let ended = |m: &mut Member| m.child.try_wait().is_ok_and(|status| status.is_some());
            if self.members.iter_mut().any(ended) || Instant::now() > until {
                return false;
            }
            if (0..self.members.len()).all(|i| self.is_healthy(i)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Addresses of all members.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|i| self.endpoint(i)).collect()
    }

    /// Address of one member.
    #[must_use]
    pub fn endpoint(&self, member: usize) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let Member { host, client, .. } = &self.members[member];
        format!("{scheme}://{host}:{client}")
    }

    /// A folder that goes with the cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Whether a member is part of a cluster that has a leader.
    #[must_use]
    pub fn is_healthy(&self, member: usize) -> bool {
        self.ask(member, "/health").is_some_and(|said| said.contains(r#""health":"true""#))
    }

    /// The member that leads.
    ///
    /// # Panics
    /// When none does for a minute.
    #[must_use]
    pub fn leader(&self) -> usize {
        let leads = |i: &usize| {
            self.ask(*i, "/metrics").is_some_and(|said| said.contains("\netcd_server_is_leader 1"))
        };
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = (0..self.members.len()).find(leads) {
                return leader;
            }
            assert!(Instant::now() < until, "etcd has no leader");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills a member at once.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self, member: usize) {
        let child = &mut self.members[member].child;
        child.kill().expect("a member can be killed");
        child.wait().expect("a killed member ends");
    }

    /// Starts a member again that was killed, on what it had written.
    ///
    /// # Panics
    /// When it is not healthy within a minute.
    pub fn restart(&mut self, member: usize) {
        self.members[member].child = run(&self.members[member].command);
        let until = Instant::now() + PATIENCE;
        while !self.is_healthy(member) {
            assert!(Instant::now() < until, "member {member} does not come back");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops a member as a frozen host would: it holds its connections and says nothing.
    pub fn freeze(&self, member: usize) {
        signal(self.members[member].child.id(), "STOP");
    }

    /// Lets a frozen member go on.
    pub fn thaw(&self, member: usize) {
        signal(self.members[member].child.id(), "CONT");
    }

    /// `etcdctl` with these arguments at the first member; what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ctl(&self, args: &[&str]) -> String {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.endpoint(0)).args(args);
        let done = command.output().expect("etcdctl is installed: run ops/setup-services");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success(),
            "etcdctl {args:?}: {said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        said
    }

    /// The body that a member's monitoring address answers, if it does.
    fn ask(&self, member: usize, path: &str) -> Option<String> {
        let limit = Duration::from_secs(2);
        let Member { host, metrics, .. } = &self.members[member];
        let at = format!("{host}:{metrics}").parse().ok()?;
        let mut stream = TcpStream::connect_timeout(&at, limit).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").ok()?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said).ok()?;
        Some(String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

fn run(command: &[String]) -> Child {
    let mut process = Command::new(&command[0]);
    process.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    process.spawn().expect("etcd is installed: run ops/setup-services")
}

/// Ports that nobody listens on, all different.
fn free_ports(count: usize) -> Vec<u16> {
    let bind = |_| TcpListener::bind("127.0.0.1:0").expect("a free port");
    let held: Vec<_> = (0..count).map(bind).collect();
    held.iter().map(|l| l.local_addr().expect("a bound port").port()).collect()
}
