//! Network devices by name, over rtnetlink.
//!
//! Knows a device's MTU, queue, state and bridge. Never knows a frame. Each call makes its own connection and leaves
//! no thread behind, so that it may run before the sandbox closes.

use std::io;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkHandle, LinkUnspec};

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) mtu: u16,
    /// Frames its queue holds (`txqueuelen`).
    pub(super) queue: u32,
    pub(super) is_up: bool,
    pub(super) is_bridge: bool,
    /// Index of the bridge it is a port of.
    pub(super) controller: Option<u32>,
    /// What somebody wrote on it (`ip link set alias`).
    pub(super) alias: Option<String>,
}

/// Every device, by name.
pub(super) fn all() -> io::Result<Vec<(String, Link)>> {
    let found = run(async |links: LinkHandle| links.get().execute().try_collect::<Vec<_>>().await)?;
    let named = |message: LinkMessage| {
        let name = message.attributes.iter().find_map(|attribute| {
            if let LinkAttribute::IfName(name) = attribute { Some(name.clone()) } else { None }
        });
        Some((name?, Link::from(message)))
    };
    Ok(found.into_iter().filter_map(named).collect())
}

/// The device of this name, if there is one.
pub(super) fn find(name: &str) -> io::Result<Option<Link>> {
    let found = run(async |links: LinkHandle| links.get().match_name(name).execute().try_next().await);
    match found {
        Ok(message) => Ok(message.map(Link::from)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets its MTU.
pub(super) fn set_mtu(index: u32, mtu: u16) -> io::Result<()> {
    change(LinkUnspec::new_with_index(index).mtu(mtu.into()).build())
}

/// Sets how many frames its queue holds.
pub(super) fn set_queue(index: u32, frames: u32) -> io::Result<()> {
    change(LinkUnspec::new_with_index(index).txqueuelen(frames).build())
}

/// Keeps the host from giving it an IPv6 address of its own making. Takes effect only before it is brought up.
pub(super) fn silence_ipv6(index: u32) -> io::Result<()> {
    let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let attribute = LinkAttribute::AfSpecUnspec(vec![mode]);
    change(LinkUnspec::new_with_index(index).append_extra_attribute(attribute).build())
}

/// Makes it a port of a bridge.
pub(super) fn enslave(index: u32, bridge: u32) -> io::Result<()> {
    change(LinkUnspec::new_with_index(index).controller(bridge).build())
}

/// Writes on it whose it is.
pub(super) fn set_alias(index: u32, alias: &str) -> io::Result<()> {
    let attribute = LinkAttribute::IfAlias(alias.to_owned());
    change(LinkUnspec::new_with_index(index).append_extra_attribute(attribute).build())
}

/// Brings it up.
pub(super) fn bring_up(index: u32) -> io::Result<()> {
    change(LinkUnspec::new_with_index(index).up().build())
}

fn change(message: LinkMessage) -> io::Result<()> {
    run(async |links: LinkHandle| links.change(message).execute().await)
}

pub(super) fn run<T>(work: impl AsyncFnOnce(LinkHandle) -> Result<T, rtnetlink::Error>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _unasked) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let answer = work(handle.link()).await;
        connection.abort();
        answer.map_err(kernel_answer)
    })
}

fn kernel_answer(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = &error {
        message.to_io()
    } else {
        io::Error::other(error)
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            mtu: super::MTU_DEFAULT,
            queue: 0,
            is_up: message.header.flags.contains(LinkFlags::Up),
            is_bridge: false,
            controller: None,
            alias: None,
        };
        for attribute in message.attributes {
            if let LinkAttribute::Mtu(mtu) = attribute {
                link.mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            } else if let LinkAttribute::TxQueueLen(frames) = attribute {
                link.queue = frames;
            } else if let LinkAttribute::Controller(index) = attribute {
                link.controller = (index != 0).then_some(index);
            } else if let LinkAttribute::IfAlias(alias) = attribute {
                link.alias = Some(alias);
            } else if let LinkAttribute::LinkInfo(infos) = attribute {
                link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
        }
        link
    }
}
