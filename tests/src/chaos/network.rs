//! Hosts in network namespaces: each worker has a link to the coordinator and one to its peers, and either can
//! be taken down. Needs root. Dropped, all of it is gone.

use std::{
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::etcd::Host;

/// Names of namespaces and links begin with this, and the id of the process that made them.
const NAME: &str = "mdv";
/// More hosts than any test has.
const MOST_HOSTS: usize = 8;

/// One network a process at a time: their names are the process's.
static ONE: Mutex<()> = Mutex::new(());

/// Some hosts and the two bridges between them; the coordinator lives outside, on the first.
pub struct Network {
    prefix: String,
    subnet: u32,
    hosts: usize,
    /// Let go once all of it is gone.
    _one: MutexGuard<'static, ()>,
}

/// Which of a host's links.
#[derive(Clone, Copy, Debug)]
pub enum Plane {
    /// To the coordinator.
    Control,
    /// To the other hosts.
    Data,
}

impl Plane {
    const BOTH: [Self; 2] = [Self::Control, Self::Data];

    fn letter(self) -> char {
        match self {
            Self::Control => 'c',
            Self::Data => 'd',
        }
    }

    fn second_byte(self) -> u32 {
        match self {
            Self::Control => 78,
            Self::Data => 79,
        }
    }
}

impl Network {
    /// `hosts` hosts. None, with the reason printed, where this process may not make them.
    ///
    /// # Panics
    /// When it may, and they cannot be made.
    #[must_use]
    pub fn up(hosts: usize) -> Option<Self> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        sweep();
        let id = std::process::id();
        let network = Self { prefix: format!("{NAME}{id}"), subnet: id % 250, hosts, _one: one };
        match network.build() {
            Ok(()) => Some(network),
            Err(why) if !why.contains("not permitted") => panic!("{why}"),
            Err(why) => {
                println!("skipped: no network namespace can be made here (it needs root): {why}");
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        for plane in Plane::BOTH {
            let bridge = self.bridge(plane);
            ip(&["link", "add", &bridge, "type", "bridge"])?;
            let address = format!("{}/24", self.address(plane, 254));
            ip(&["addr", "add", &address, "dev", &bridge])?;
            ip(&["link", "set", &bridge, "up"])?;
        }
        for host in 0..self.hosts {
            let space = self.space(host);
            ip(&["netns", "add", &space])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            for plane in Plane::BOTH {
                let (link, inside) = (self.link(host, plane), format!("eth{}", plane.letter()));
                ip(&[
                    "link", "add", &link, "type", "veth", "peer", "name", &inside, "netns", &space,
                ])?;
                ip(&["link", "set", &link, "master", &self.bridge(plane), "up"])?;
                let address = format!("{}/24", self.address(plane, host as u32 + 1));
                ip(&["-n", &space, "addr", "add", &address, "dev", &inside])?;
                ip(&["-n", &space, "link", "set", &inside, "up"])?;
            }
        }
        Ok(())
    }

    /// Where the coordinator can listen.
    #[must_use]
    pub fn coordinator(&self) -> String {
        self.address(Plane::Control, 254)
    }

    /// Address of a host for the coordinator.
    #[must_use]
    pub fn control(&self, host: usize) -> String {
        self.address(Plane::Control, host as u32 + 1)
    }

    /// Address of a host for its peers.
    #[must_use]
    pub fn peer(&self, host: usize) -> String {
        self.address(Plane::Data, host as u32 + 1)
    }

    /// `command`, run on a host.
    #[must_use]
    pub fn on(&self, host: usize, command: &Command) -> Command {
        let mut there = Command::new("ip");
        there.args(["netns", "exec", &self.space(host)]);
        there.arg(command.get_program()).args(command.get_args());
        there
    }

    /// A host for a member of etcd: clients reach it on the coordinator's side, members each other on the other.
    #[must_use]
    pub fn etcd_host(&self, host: usize) -> Host {
        let run = ["ip", "netns", "exec", &self.space(host)].map(str::to_owned).to_vec();
        Host { client: self.address(Plane::Control, host as u32 + 1), peer: self.peer(host), run }
    }

    /// Cuts a host off from everyone, or heals it.
    pub fn cut(&self, host: usize, cut: bool) {
        for plane in Plane::BOTH {
            self.set(host, plane, !cut);
        }
    }

    /// Takes a link of a host down, without a word to either end, or up again.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn set(&self, host: usize, plane: Plane, up: bool) {
        let to = if up { "up" } else { "down" };
        ip(&["link", "set", &self.link(host, plane), to]).expect("a link can be set");
    }

    /// Name of a host's network namespace.
    #[must_use]
    pub fn space(&self, host: usize) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn bridge(&self, plane: Plane) -> String {
        format!("{}{}b", self.prefix, plane.letter())
    }

    fn link(&self, host: usize, plane: Plane) -> String {
        format!("{}{}{host}", self.prefix, plane.letter())
    }

    fn address(&self, plane: Plane, last: u32) -> String {
        format!("10.{}.{}.{last}", plane.second_byte(), self.subnet)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        tear_down(&self.prefix, self.hosts);
    }
}

/// What was never made is not missed. A namespace takes its links along, but some time later: their names would still
/// be taken.
fn tear_down(prefix: &str, hosts: usize) {
    for host in 0..hosts {
        for plane in Plane::BOTH {
            let _ = ip(&["link", "del", &format!("{prefix}{}{host}", plane.letter())]);
        }
        let _ = ip(&["netns", "del", &format!("{prefix}-{host}")]);
    }
    for plane in Plane::BOTH {
        let _ = ip(&["link", "del", &format!("{prefix}{}b", plane.letter())]);
    }
}

/// Removes what a test left behind that was killed itself.
fn sweep() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((prefix, _)) = name.rsplit_once('-') else { continue };
        let Some(id) = prefix.strip_prefix(NAME) else { continue };
        if id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists() {
            tear_down(prefix, MOST_HOSTS);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|e| format!("ip: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(format!("ip {}: {why}", arguments.join(" ")))
        }
    }
}
