//! Two guests, each behind its own firewall, and what joins them.
//!
//! It may know how the parts of the laboratory fit together. It must never know what the rules should achieve.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::firewall::{Firewall, Uplink};
use crate::host::{self, Host};
use crate::image::Image;
use crate::process::Process;
use crate::program;
use crate::rung::{Rung, Wiring};
use crate::vm::{Spec, Vm, Wire};

/// What a guest is called and which addresses are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its name, and its NIC's.
    pub name: &'static str,
    /// Its MAC address.
    pub mac: &'static str,
    /// Its IPv4 address.
    pub v4: &'static str,
    /// Its IPv6 address.
    pub v6: &'static str,
}

/// The guest that offers services.
pub const WEB: End = End { name: "web", mac: "52:54:00:00:00:01", v4: "10.0.0.10", v6: "2001:db8:0:1::10" };
/// The guest that uses them.
pub const CLIENT: End =
    End { name: "client", mac: "52:54:00:00:00:02", v4: "10.0.0.20", v6: "2001:db8:0:1::20" };

/// A guest behind its firewall.
#[derive(Debug)]
pub struct Place {
    /// Who it is.
    pub end: End,
    /// Its firewall.
    pub firewall: Firewall,
    /// The guest.
    pub vm: Vm,
}

/// Who speaks in a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// [`WEB`].
    Web,
    /// [`CLIENT`].
    Client,
    /// The host on the bridge, which nobody's firewall judges.
    Host,
}

/// The whole of it. What is dropped first needs the others least.
#[derive(Debug)]
pub struct Site {
    /// The guest that offers services.
    pub web: Place,
    /// The guest that uses them.
    pub client: Place,
    /// The bridge, where there is one.
    pub host: Option<Host>,
    /// The rung everything stands on.
    pub rung: Rung,
    switch: Option<Process>,
    folder: PathBuf,
}

impl Site {
    /// Starts everything in `folder` and waits until both guests answer. `rules` are the two rules files,
    /// [`WEB`]'s first.
    ///
    /// # Errors
    /// A part does not start; the error names it.
    pub fn open(rung: Rung, image: &Image, rules: [&str; 2], folder: &Path) -> Result<Self> {
        let host = match rung.wiring {
            Wiring::Bridge => {
                let leases = [WEB, CLIENT].map(|end| (end.mac.to_owned(), end.v4.to_owned()));
                Some(Host::make(folder, &leases)?)
            }
            Wiring::Switch => None,
        };
        let uplink = |end: End| match rung.wiring {
            Wiring::Bridge => Uplink::Bridge(host::BRIDGE.to_owned()),
            Wiring::Switch => Uplink::Unix(wire_of(folder, end)),
        };
        let [web_rules, client_rules] = rules;
        let web = Firewall::start(WEB.name, web_rules, uplink(WEB), folder)?;
        let client = Firewall::start(CLIENT.name, client_rules, uplink(CLIENT), folder)?;
        let switch = match rung.wiring {
            Wiring::Bridge => None,
            Wiring::Switch => Some(start_switch(folder)?),
        };
        let by_dhcp = host.as_ref().is_some_and(Host::leases);
        let serve = "serve=http:80,tcp:7,udp:7,tcp:22,tcp:23,tcp:25,tcp:2222,iperf3:5201";
        let web_vm = start_vm(&rung, image, WEB, &web, &[serve], by_dhcp, folder)?;
        let client_vm = start_vm(&rung, image, CLIENT, &client, &["serve=tcp:22,tcp:7"], by_dhcp, folder)?;
        let mut site = Self {
            web: Place { end: WEB, firewall: web, vm: web_vm },
            client: Place { end: CLIENT, firewall: client, vm: client_vm },
            host,
            rung,
            switch,
            folder: folder.to_owned(),
        };
        site.wait()?;
        Ok(site)
    }

    /// Waits until both guests answer and have their addresses for good.
    ///
    /// # Errors
    /// One does not.
    pub fn wait(&mut self) -> Result<()> {
        for place in [&mut self.web, &mut self.client] {
            place.vm.wait()?;
            let end = Instant::now() + Duration::from_secs(30);
            let settled = format!(
                "ip addr show eth0 | grep -q {}/ && ! ip addr show eth0 | grep -q tentative",
                place.end.v4
            );
            while place.vm.run(&settled)?.status != 0 {
                if Instant::now() > end {
                    let state = place.vm.must("ip addr show eth0; cat /tmp/udhcpc* 2>/dev/null || true")?;
                    bail!("{} has no address:\n{state}\n{}", place.end.name, place.firewall.log_tail());
                }
                thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }

    /// The place of a guest; `None` for the host.
    pub fn place(&mut self, who: Who) -> Option<&mut Place> {
        match who {
            Who::Web => Some(&mut self.web),
            Who::Client => Some(&mut self.client),
            Who::Host => None,
        }
    }

    /// Runs a shell command as `who`; what it printed, whatever its exit status.
    ///
    /// # Errors
    /// It cannot be run, or a guest does not answer.
    pub fn run_as(&mut self, who: Who, command: &str) -> Result<String> {
        if let Some(place) = self.place(who) {
            return Ok(place.vm.run(command)?.text);
        }
        let path = format!("{}:{}", program::folder()?.display(), env::var("PATH").unwrap_or_default());
        let output = Command::new("sh").args(["-c", command]).env("PATH", path).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Where logs, sockets and rules are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets everything live on after this program; the process ids, in the order in which to end them.
    pub fn let_go(self) -> Vec<u32> {
        let mut ids = vec![self.web.vm.let_go(), self.client.vm.let_go()];
        ids.extend([self.web.firewall.let_go(), self.client.firewall.let_go()]);
        ids.extend(self.host.and_then(Host::let_go));
        ids.extend(self.switch.map(Process::let_go));
        ids
    }
}

/// The uplink socket of a guest's firewall, on the rung without a bridge.
fn wire_of(folder: &Path, end: End) -> PathBuf {
    folder.join(end.name).join("wire.sock")
}

fn start_switch(folder: &Path) -> Result<Process> {
    let mut command = Command::new(program::ours("lab")?);
    command.arg("switch").args([WEB, CLIENT].map(|end| wire_of(folder, end)));
    Process::start("switch", &mut command, folder)
}

fn start_vm(
    rung: &Rung,
    image: &Image,
    end: End,
    firewall: &Firewall,
    orders: &[&str],
    by_dhcp: bool,
    folder: &Path,
) -> Result<Vm> {
    let address = if by_dhcp {
        vec![format!("addr={}/64", end.v6), "dhcp=1".to_owned()]
    } else {
        vec![format!("addr={}/24,{}/64", end.v4, end.v6)]
    };
    let spec = Spec {
        name: end.name.to_owned(),
        mac: end.mac.to_owned(),
        wire: Wire::VhostUser(firewall.socket()),
        orders: orders.iter().map(|order| (*order).to_owned()).chain(address).collect(),
        moving: None,
    };
    Vm::start(rung, image, &spec, folder).with_context(|| format!("the VM {}", end.name))
}
