//! Two real guests, with and without firewalls between them.
//!
//! What a guest can send is the limit here more than what we can judge: it shows what an operator's VMs notice. It
//! may know sites and bare taps. It must never compare two different machines.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Rounds, quiet};
use crate::host::{BRIDGE, ip};
use crate::image::Image;
use crate::rung::{Rung, Wiring};
use crate::site::{CLIENT, End, Site, WEB};
use crate::vm::{Spec, Vm, Wire};

const RULES: [&str; 2] = [include_str!("guests/web.yaml"), include_str!("guests/client.yaml")];

pub(super) fn tcp_tso() -> Result<Rounds> {
    let image = Image::ensure()?;
    let rung = Rung::pick(&image, Wiring::Bridge)?;
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let mut site = Site::open(rung.clone(), &image, RULES, folder.path())?;
    let bare = folder.path().join("bare");
    std::fs::create_dir(&bare)?;
    let mut pair = [BareGuest { end: WEB, network: 1 }, BareGuest { end: CLIENT, network: 1 }]
        .map(|guest| guest.start(&rung, &image, &bare));
    let [Ok(_), Ok(client)] = &mut pair else { anyhow::bail!("the guests on bare taps do not start") };
    quiet::take_turns(|| stream(&mut site.client.vm, WEB.v4), || stream(client, "10.0.1.10"))
}

/// A guest with nothing between it and the bridge.
struct BareGuest {
    end: End,
    network: u8,
}

impl BareGuest {
    fn start(&self, rung: &Rung, image: &Image, folder: &Path) -> Result<Vm> {
        let tap = format!("bare-{}", self.end.name);
        ip(&format!("tuntap add {tap} mode tap vnet_hdr"))?;
        ip(&format!("link set {tap} master {BRIDGE} up"))?;
        let spec = Spec {
            name: self.end.name.to_owned(),
            mac: self.end.mac.replacen("52:54:00", "52:54:01", 1),
            wire: Wire::Tap(tap),
            orders: vec![
                format!("addr={}/24", self.end.v4.replacen("10.0.0.", &format!("10.0.{}.", self.network), 1)),
                "serve=iperf3:5201".to_owned(),
            ],
            moving: None,
        };
        let mut vm = Vm::start(rung, image, &spec, folder)?;
        vm.wait()?;
        Ok(vm)
    }
}

/// Mbit/s of one TCP stream.
fn stream(client: &mut Vm, to: &str) -> Result<f64> {
    let command = format!("iperf3 -c {to} -t 5 -i 0 -J --connect-timeout 5000");
    let answer = client.run_within(&command, Duration::from_secs(60))?;
    let said: Value =
        serde_json::from_str(&answer.text).with_context(|| format!("iperf3 said: {}", answer.text))?;
    let rate = said.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    Ok(rate.with_context(|| format!("iperf3 said: {}", answer.text))? / 1e6)
}
