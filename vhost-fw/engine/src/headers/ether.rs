//! Ethernet II and at most one VLAN tag (IEEE 802.3, 802.1Q).
//!
//! Knows tags and ethertypes. Never knows which VLAN is the NIC's own.

use fw_model::MacAddr;

use super::view::View;
use super::{Ether, Malformed};

pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const RARP: u16 = 0x8035;
pub(super) const IPV6: u16 = 0x86dd;
const TAG: u16 = 0x8100;
/// Below this the field is a length (IEEE 802.3 section 3.2.6).
const ETHERTYPE_MIN: u16 = 0x0600;

#[inline]
pub(super) fn parse(frame: View<'_>, ether: &mut Ether) -> Result<(), Malformed> {
    let outer = u16::from_be_bytes(*frame.header(12, Malformed::Runt)?);
    let (vlan, ethertype, length) =
        if outer == TAG { tag(frame.header(14, Malformed::TagShort)?)? } else { (None, outer, 14) };
    // Service tags are 802.1ad's, and what vendors wrote before it.
    if matches!(ethertype, TAG | 0x88a8 | 0x9100 | 0x9200 | 0x9300) {
        return Err(Malformed::TagTwice);
    }
    if ethertype < ETHERTYPE_MIN {
        return Err(Malformed::NotEthernet2);
    }
    let destination = MacAddr(*frame.header(0, Malformed::Runt)?);
    let source = MacAddr(*frame.header(6, Malformed::Runt)?);
    *ether = Ether { destination, source, vlan, ethertype, length };
    Ok(())
}

#[inline]
fn tag([c0, c1, t0, t1]: &[u8; 4]) -> Result<(Option<u16>, u16, usize), Malformed> {
    let vlan = u16::from_be_bytes([c0 & 0x0f, *c1]);
    if vlan == 0 || vlan == 4095 {
        return Err(Malformed::TagReserved);
    }
    Ok((Some(vlan), u16::from_be_bytes([*t0, *t1]), 18))
}
