//! The `nic` section: who the NIC is.
//!
//! Knows the keys of an identity. Never knows rules.

use fw_model::{Addr, Binding, Cidr, GuardSwitches, LinkLocal, MacAddr, NicIdentity, VlanId};

use crate::problems::Problems;
use crate::read::{self, Fields};
use crate::tree::{Node, Value};

const KEYS: &[&str] =
    &["id", "mac", "addresses", "vlan", "link-local", "shared", "gateways", "dhcp-servers", "mtu", "guard"];
const ADDRESSES: &str = "[10.0.0.10, \"2001:db8::10\"]";
const BINDINGS: &str = "[{address: 10.0.0.1, mac: \"52:54:00:00:00:01\"}]";

/// The smallest MTU an IPv4 link may have (RFC 791).
const MTU_MIN: u16 = 68;

/// The whole identity of a NIC.
pub fn identity(node: &Node<'_>, problems: &mut Problems) -> Option<NicIdentity> {
    identity_of(node, &[], problems)?.0
}

/// As [`identity`], of a mapping that has `more` keys besides, which the returned fields hold.
pub fn identity_of<'n, 't>(
    node: &'n Node<'t>,
    more: &[&'static str],
    problems: &mut Problems,
) -> Option<(Option<NicIdentity>, Fields<'n, 't>)> {
    let known: Vec<&'static str> = KEYS.iter().chain(more).copied().collect();
    let fields = Fields::read(node, "nic", &known, problems)?;
    Some((identity_from(&fields, problems), fields))
}

fn identity_from(fields: &Fields<'_, '_>, problems: &mut Problems) -> Option<NicIdentity> {
    let id = fields.need("id", problems).and_then(|node| read::parsed(node, "id", "a NIC's name", problems));
    let mac = fields.need("mac", problems).and_then(|node| mac(node, problems));
    let addresses = fields.get("addresses").map(|node| prefixes(node, "addresses", problems));
    let vlan = fields.get("vlan").map(|node| read::number(node, "vlan", 1_u16, 4094, problems));
    let link_local = fields.get("link-local").map(|node| link_local(node, problems));
    let shared = fields.get("shared").map(|node| {
        let items = read::list(node, "shared", BINDINGS, problems)?;
        each(items, |item| binding(item, problems))
    });
    let gateways = fields.get("gateways").map(|node| bindings(node, "gateways", problems));
    let dhcp_servers = fields.get("dhcp-servers").map(|node| dhcp_servers(node, problems));
    let mtu = fields.get("mtu").map(|node| read::number(node, "mtu", MTU_MIN, u16::MAX, problems));
    let guard = fields.get("guard").map(|node| guard(node, problems));
    Some(NicIdentity {
        id: id?,
        mac: mac?,
        addresses: addresses.unwrap_or_else(|| Some(Vec::new()))?,
        vlan: vlan.flatten().and_then(|number| VlanId::try_from(number).ok()),
        link_local: link_local.unwrap_or(Some(LinkLocal::Eui64))?,
        shared: shared.unwrap_or_else(|| Some(Vec::new()))?,
        gateways: gateways.unwrap_or_else(|| Some(Vec::new()))?,
        dhcp_servers: dhcp_servers.unwrap_or_else(|| Some(Vec::new()))?,
        mtu: mtu.flatten(),
        guard: guard.unwrap_or(Some(GuardSwitches::ALL))?,
    })
}

/// The MAC address of one interface: never a group's, never all zeros.
pub fn mac(node: &Node<'_>, problems: &mut Problems) -> Option<MacAddr> {
    let found = read::text(node).and_then(|text| text.parse::<MacAddr>().ok());
    let found = found.filter(|mac| !mac.is_group() && *mac != MacAddr([0; 6]));
    if found.is_none() {
        problems.add(
            node.line,
            format!(
                "`mac`: expected one interface's MAC address such as \"52:54:00:00:00:01\", found {node}"
            ),
        );
    }
    found
}

/// `{address, mac}`.
pub fn binding(node: &Node<'_>, problems: &mut Problems) -> Option<Binding> {
    let fields = Fields::read(node, "an address with its mac", &["address", "mac"], problems)?;
    let address = fields
        .need("address", problems)
        .and_then(|node| read::parsed(node, "address", "one address", problems));
    let mac = fields.need("mac", problems).and_then(|node| mac(node, problems));
    Some(Binding { address: address?, mac: mac? })
}

/// Reads every item, so that all problems are told; `None` if one of them is wrong.
pub fn each<'n, 't, T>(
    items: &'n [Node<'t>],
    mut read: impl FnMut(&'n Node<'t>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut good = Vec::with_capacity(items.len());
    good.extend(items.iter().filter_map(&mut read));
    (good.len() == items.len()).then_some(good)
}

/// A list of `{address, mac}`; never an empty one.
pub fn bindings(node: &Node<'_>, key: &str, problems: &mut Problems) -> Option<Vec<Binding>> {
    let items = read::some_list(node, key, BINDINGS, problems)?;
    each(items, |item| binding(item, problems))
}

fn prefixes(node: &Node<'_>, key: &str, problems: &mut Problems) -> Option<Vec<Cidr>> {
    let items = read::list(node, key, ADDRESSES, problems)?;
    each(items, |item| read::parsed(item, key, "an address or prefix", problems))
}

/// A list of addresses; never an empty one.
pub fn dhcp_servers(node: &Node<'_>, problems: &mut Problems) -> Option<Vec<Addr>> {
    let items = read::some_list(node, "dhcp-servers", ADDRESSES, problems)?;
    each(items, |item| read::parsed(item, "dhcp-servers", "an address", problems))
}

fn link_local(node: &Node<'_>, problems: &mut Problems) -> Option<LinkLocal> {
    let Value::List(items) = &node.value else {
        let found = match read::text(node) {
            Some("eui64") => Some(LinkLocal::Eui64),
            Some("any") => Some(LinkLocal::Any),
            _ => None,
        };
        if found.is_none() {
            problems.add(
                node.line,
                format!("`link-local`: expected eui64, any or a list of addresses, found {node}"),
            );
        }
        return found;
    };
    let range = Cidr::new(Addr::v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 64);
    let addresses = each(items, |item| {
        let address: Addr = read::parsed(item, "link-local", "an address", problems)?;
        if !range.contains(address) {
            problems.add(item.line, format!("`link-local`: expected an address in fe80::/64, found {item}"));
            return None;
        }
        Some(address)
    })?;
    Some(LinkLocal::Addresses(addresses))
}

fn guard(node: &Node<'_>, problems: &mut Problems) -> Option<GuardSwitches> {
    let fields = Fields::read(node, "guard", &["arp", "nd", "dhcp", "ra", "mld"], problems)?;
    let mut switch = |key| fields.get(key).map_or(Some(true), |node| read::boolean(node, key, problems));
    let (arp, nd, dhcp, ra, mld) = (switch("arp"), switch("nd"), switch("dhcp"), switch("ra"), switch("mld"));
    Some(GuardSwitches { arp: arp?, nd: nd?, dhcp: dhcp?, ra: ra?, mld: mld? })
}
