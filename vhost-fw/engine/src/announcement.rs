//! Telling the network where a guest is, after it has moved.
//!
//! RARP for its MAC address always, ARP and neighbour advertisements for addresses that are its alone: a shared address is
//! its holder's to announce. Knows who the NIC is. Never knows why or when it is announced.

use fw_model::Direction;

use crate::guard::Guard;
use crate::reply::{self, Announcement};
use crate::verdict::Answers;

pub(crate) fn announce(guard: &Guard, answers: &mut Answers) {
    let mut out = [0; reply::REPLY_LEN_MAX];
    let vlan = Some(guard.vlan()).filter(|vlan| *vlan != 0);
    let addresses = guard.hosts().iter().copied().map(Some);
    for address in std::iter::once(None).chain(addresses) {
        let announcement = Announcement { mac: guard.mac(), vlan, address };
        let length = reply::announcement(&announcement, &mut out);
        if let Some(frame) = length.and_then(|length| out.get(..length)) {
            answers.emit(Direction::Out, frame, None);
        }
    }
}
