//! What agents say of their NICs: who is attached where, which generation it enforces, and what keeps it from more.
//!
//! Knows reports. Never knows what is wanted, but when it is asked whether that is enforced.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fw_model::NicId;
use serde::Serialize;
use tokio::sync::watch;

use crate::compiled::Wanted;

/// What is known of one NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NicRealized {
    /// The host whose agent sees it.
    pub(crate) host: String,
    /// The generation it enforces; 0 = none.
    pub(crate) enforced: u64,
    /// What keeps it from what is wanted; empty if nothing does.
    pub(crate) problem: String,
}

/// What is known of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct HostRealized {
    /// Whether its agent is connected.
    pub(crate) connected: bool,
    /// The agent's version.
    pub(crate) version: String,
    /// What on this host is not behind the firewall.
    pub(crate) unprotected: Vec<String>,
    /// Counts its connections, so that the end of an old one is not taken for the end of the new one.
    #[serde(skip)]
    connection: u64,
}

/// A NIC that does not enforce what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Pending {
    /// The NIC.
    pub(crate) nic: NicId,
    /// Its host.
    pub(crate) host: String,
    /// Why.
    pub(crate) why: String,
}

#[derive(Debug, Default)]
struct Known {
    nics: BTreeMap<NicId, NicRealized>,
    hosts: BTreeMap<String, HostRealized>,
}

/// What agents say.
#[derive(Debug, Default)]
pub(crate) struct Realized {
    known: Mutex<Known>,
    pulse: watch::Sender<u64>,
}

impl Realized {
    /// Told whenever something new is known.
    pub(crate) fn pulse(&self) -> watch::Receiver<u64> {
        self.pulse.subscribe()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let done = change(&mut self.known());
        self.pulse.send_modify(|count| *count += 1);
        done
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent connected; the number of this connection.
    pub(crate) fn connect(&self, host: &str, version: &str) -> u64 {
        self.change(|known| {
            let entry = known.hosts.entry(host.to_owned()).or_default();
            entry.connection += 1;
            entry.connected = true;
            version.clone_into(&mut entry.version);
            let connection = entry.connection;
            // It says again who is attached.
            known.nics.retain(|_, nic| nic.host != host);
            connection
        })
    }

    /// A connection ended. What the host's NICs enforce is not forgotten: they go on.
    pub(crate) fn disconnect(&self, host: &str, connection: u64) {
        self.change(|known| {
            if let Some(entry) = known.hosts.get_mut(host).filter(|entry| entry.connection == connection) {
                entry.connected = false;
            }
        });
    }

    /// Whether this connection is the host's newest and the host is trusted.
    pub(crate) fn is_current(&self, host: &str, connection: u64) -> bool {
        self.known().hosts.get(host).is_some_and(|entry| entry.connection == connection)
    }

    /// A host is trusted no more: its connection ends.
    pub(crate) fn revoke(&self, host: &str) {
        self.change(|known| {
            if let Some(entry) = known.hosts.get_mut(host) {
                entry.connection += 1;
                entry.connected = false;
            }
        });
    }

    /// A NIC is there, or what it enforces changed.
    pub(crate) fn nic(&self, nic: NicId, realized: NicRealized) {
        self.change(|known| known.nics.insert(nic, realized));
    }

    /// A NIC is there no more.
    pub(crate) fn nic_left(&self, nic: &NicId, host: &str) {
        self.change(|known| known.nics.retain(|id, entry| id != nic || entry.host != host));
    }

    /// What on a host is not behind the firewall.
    pub(crate) fn coverage(&self, host: &str, unprotected: Vec<String>) {
        self.change(|known| {
            if let Some(entry) = known.hosts.get_mut(host) {
                entry.unprotected = unprotected;
            }
        });
    }

    /// What is known of one NIC; `None` if no agent sees it.
    pub(crate) fn nic_of(&self, nic: &NicId) -> Option<NicRealized> {
        self.known().nics.get(nic).cloned()
    }

    /// All NICs that agents see.
    pub(crate) fn nics(&self) -> BTreeMap<NicId, NicRealized> {
        self.known().nics.clone()
    }

    /// All hosts whose agents ever connected.
    pub(crate) fn hosts(&self) -> BTreeMap<String, HostRealized> {
        self.known().hosts.clone()
    }

    /// Which of the attached NICs do not enforce what is wanted, each with its host and the reason. A NIC that is attached
    /// nowhere passes no frame and is not waited for.
    pub(crate) fn pending(&self, wanted: &Wanted) -> Vec<Pending> {
        let known = self.known();
        let behind = known.nics.iter().filter_map(|(nic, entry)| {
            let why = match wanted.nics.get(nic) {
                Some(shall) if entry.enforced >= shall.rules.generation => return None,
                None if entry.enforced == 0 => return None,
                None => "the policy knows it no more, and it enforces what it did".to_owned(),
                Some(_) if !known.hosts.get(&entry.host).is_some_and(|host| host.connected) => {
                    "its host's agent is not connected".to_owned()
                }
                Some(_) if !entry.problem.is_empty() => entry.problem.clone(),
                Some(shall) => {
                    format!("enforces generation {}, not yet {}", entry.enforced, shall.rules.generation)
                }
            };
            Some(Pending { nic: nic.clone(), host: entry.host.clone(), why })
        });
        behind.collect()
    }
}
