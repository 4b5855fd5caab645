//! The rules of the two guests in these tests.
//!
//! It may know the rules file. It must never know a step.

/// The rule that admits echoes in the first generation.
pub(crate) const ECHO: [&str; 1] = ["{id: echo, direction: in, action: allow, protocol: tcp, ports: [7]}"];
/// Another rule that admits them as well.
pub(crate) const ECHO_BY_ANOTHER: [&str; 1] =
    ["{id: small-services, direction: in, action: allow, protocol: tcp, ports: [1-21]}"];
/// None.
pub(crate) const NO_ECHO: [&str; 0] = [];

/// The rules of the guest that offers services, with these for its echo service.
pub(crate) fn web(generation: u64, echo: &[&str]) -> String {
    let echo: String = echo.iter().map(|rule| format!("  - {rule}\n")).collect();
    format!(
        r#"generation: {generation}
nic:
  id: web
  mac: "52:54:00:00:00:01"
  addresses: [10.0.0.10, "2001:db8:0:1::10"]
  dhcp-servers: [10.0.0.1]
defaults: {{out: drop, in: drop}}
address-sets:
  local: [10.0.0.0/24, "2001:db8:0:1::/64"]
rules:
{echo}  - {{id: web, direction: in, action: allow, protocol: tcp, ports: [80]}}
  - {{id: ping, direction: in, action: allow, protocol: icmp, icmp: [echo-request]}}
  - {{id: no-telnet, direction: in, action: reject, protocol: tcp, ports: [23]}}
  - {{id: udp-echo, direction: in, action: allow, protocol: udp, remote: [{{set: local}}], ports: [7]}}
  - {{id: iperf, direction: in, action: allow, protocol: tcp, ports: [5201]}}
"#
    )
}

/// The rules of the guest that uses them.
pub(crate) fn client(generation: u64) -> String {
    format!(
        r#"generation: {generation}
nic:
  id: client
  mac: "52:54:00:00:00:02"
  addresses: [10.0.0.20, "2001:db8:0:1::20"]
  dhcp-servers: [10.0.0.1]
defaults: {{out: drop, in: drop}}
rules:
  - {{id: no-mail, direction: out, action: drop, protocol: tcp, ports: [25]}}
  - {{id: local, direction: out, action: allow, remote: [10.0.0.0/24, "2001:db8:0:1::/64"]}}
"#
    )
}
