//! DHCP and group membership: what every NIC may ask of its network, and hear from it.
//!
//! Knows who may be client and who server. Never knows leases or groups.

use fw_model::{Addr, Direction, MacAddr, Reason};

use super::address::is_group;
use super::identity::is_link_local;
use super::{Checked, Cleared, Guard, GuardRule, require};
use crate::headers::{Dhcp, Ether, GroupMessage, Ip};

/// RFC 2131 section 4.1: clients send from here.
const DHCP_CLIENT_PORT: u16 = 68;
/// RFC 8415 section 7.2: servers and relays send from here.
const DHCPV6_SERVER_PORT: u16 = 547;

impl Guard {
    pub(super) fn check_dhcp(
        &self,
        direction: Direction,
        ether: &Ether,
        ip: &Ip,
        source_port: u16,
        dhcp: Dhcp,
    ) -> Checked<Cleared> {
        let is_v4 = ip.destination.is_v4();
        let fits = match (direction, dhcp) {
            (Direction::Out, Dhcp::Client { hardware }) => {
                let client_port =
                    if is_v4 { source_port == DHCP_CLIENT_PORT } else { source_port != DHCPV6_SERVER_PORT };
                let to_all = is_group(ip.destination) || ether.destination == MacAddr::BROADCAST;
                client_port
                    && self.is_our_client(hardware, is_v4)
                    && (to_all || self.is_server(ip.destination))
            }
            (Direction::In, Dhcp::Server { hardware }) => {
                self.is_our_client(hardware, is_v4) && self.is_server(ip.source)
            }
            (Direction::Out, Dhcp::Server { .. }) | (Direction::In, Dhcp::Client { .. }) => false,
        };
        require(fits, Reason::DhcpRefused, GuardRule::Dhcp)?;
        Ok(Cleared::Allowed(GuardRule::Dhcp))
    }

    /// A guest asks for groups, a router or switch asks who is in them; never the other way round. Both stay on the
    /// link (hop limit 1, which the parser saw).
    pub(super) fn check_group(direction: Direction, ip: &Ip, message: GroupMessage) -> Checked<Cleared> {
        // RFC 3810 section 5: MLD speaks from link-local addresses, or from `::` where that was let pass.
        let from_link = ip.source.is_v4() || is_link_local(ip.source) || ip.source.bits() == 0;
        let fits = from_link
            && match (direction, message) {
                (Direction::Out, GroupMessage::Report) => is_group(ip.destination),
                (Direction::In, GroupMessage::Query) => true,
                (Direction::Out, GroupMessage::Query) | (Direction::In, GroupMessage::Report) => false,
            };
        require(fits, Reason::GroupMessageRefused, GuardRule::Mld)?;
        Ok(Cleared::Allowed(GuardRule::Mld))
    }

    /// Whether a message names our NIC as the client. `DHCPv6` names it only in some client identifiers.
    fn is_our_client(&self, hardware: Option<MacAddr>, is_v4: bool) -> bool {
        hardware.map_or(!is_v4, |mac| mac == self.identity.mac)
    }

    /// Whether `addr` may be a DHCP server. `DHCPv6` servers and relays speak from link-local addresses, so these are
    /// never compared.
    fn is_server(&self, addr: Addr) -> bool {
        let mut family = self.dhcp_servers.iter().filter(|server| server.is_v4() == addr.is_v4()).peekable();
        family.peek().is_none() || is_link_local(addr) || family.any(|server| *server == addr)
    }
}
