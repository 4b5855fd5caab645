//! The last good policy of this host, on its disk: authenticated, and never older than one that was there before.
//!
//! Knows what serve last said. Never knows which NICs are there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fw_control::{SetChange, age};
use fw_model::{AddressSet, Member, NicId, RuleSet, SetName};
use serde::{Deserialize, Serialize};

use crate::authority::write_whole;
use crate::clock::now_ms;
use crate::link::wire;
use crate::roles::new_secret;

/// What serve last said about this host's NICs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The version of the policy; 0 = none.
    pub(crate) version: u64,
    /// Sets that the NICs share.
    pub(crate) sets: BTreeMap<SetName, Arc<AddressSet>>,
    /// By NIC.
    pub(crate) nics: BTreeMap<NicId, KeptNic>,
}

/// One NIC's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptNic {
    /// Its rules, without sets.
    rules: Arc<RuleSet>,
    /// The sets these name.
    sets: Vec<SetName>,
    /// When serve said so, milliseconds since 1970.
    heard_ms: i64,
}

/// Why a policy is not taken, kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    /// What serve says does not fit what it said before.
    #[error("serve said what does not fit: {0}")]
    Misfit(String),
    /// It is older than what was taken already.
    #[error(
        "serve says version {said}, and version {kept} was taken already: was it restored from an old backup?"
    )]
    Older {
        /// What serve says.
        said: u64,
        /// What was taken.
        kept: u64,
    },
    /// The kept file is altered, or older than one before.
    #[error("{0}")]
    NotBelieved(String),
    /// The disk says no.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
}

impl Kept {
    /// What this becomes by an order; refused whole if it does not fit.
    pub(crate) fn after(&self, order: &wire::Order) -> Result<Self, KeptError> {
        if order.version < self.version {
            return Err(KeptError::Older { said: order.version, kept: self.version });
        }
        let misfit = |what: String| KeptError::Misfit(what);
        let mut next = if order.base == 0 { Self::default() } else { self.clone() };
        if order.base != 0 && order.base != self.version {
            return Err(misfit(format!("a change to version {}, and {} is kept", order.base, self.version)));
        }
        next.version = order.version;
        for change in &order.sets {
            let name: SetName = change.name.parse().map_err(|error| misfit(format!("{error}")))?;
            let set =
                changed(next.sets.get(&name), change).map_err(|why| misfit(format!("set {name}: {why}")))?;
            next.sets.insert(name, Arc::new(set));
        }
        for nic in &order.nics {
            let id: NicId = nic.nic.parse().map_err(|error| misfit(format!("{error}")))?;
            let kept = spoken(next.nics.get(&id), nic).map_err(|why| misfit(format!("NIC {id}: {why}")))?;
            next.nics.insert(id, kept);
        }
        next.nics.retain(|nic, _| !order.nics_gone.iter().any(|gone| gone == nic.as_str()));
        next.sets.retain(|name, _| !order.sets_gone.contains(&name.to_string()));
        // A NIC starts or resumes only with complete sets.
        for (nic, kept) in &next.nics {
            if let Some(name) = kept.sets.iter().find(|name| !next.sets.contains_key(*name)) {
                return Err(misfit(format!("NIC {nic} names set {name}, which was not said")));
            }
        }
        Ok(next)
    }

    /// All that `nic` shall enforce, with the life that is left of it; `None` if serve said nothing about it.
    pub(crate) fn rules_of(&self, nic: &NicId) -> Option<RuleSet> {
        let kept = self.nics.get(nic)?;
        let mut rules = RuleSet::clone(&kept.rules);
        for name in &kept.sets {
            rules.address_sets.insert(name.clone(), Arc::clone(self.sets.get(name)?));
        }
        // A clock that went back must not make a rule live longer: then it is over.
        age(&mut rules, u64::try_from(now_ms().saturating_sub(kept.heard_ms)).unwrap_or(u64::MAX));
        Some(rules)
    }

    /// The generation `nic` shall enforce.
    pub(crate) fn generation_of(&self, nic: &NicId) -> Option<u64> {
        self.nics.get(nic).map(|kept| kept.rules.generation)
    }
}

fn changed(before: Option<&Arc<AddressSet>>, change: &wire::SetChange) -> Result<AddressSet, String> {
    let members =
        |json: &[u8]| serde_json::from_slice::<Vec<Member>>(json).map_err(|error| error.to_string());
    let (added, removed) = (members(&change.added)?, members(&change.removed)?);
    if change.whole {
        return Ok(AddressSet { members: added });
    }
    let before = before.ok_or("a change to a set that was never said")?;
    SetChange { added, removed }.onto(before).ok_or_else(|| "the change does not fit its members".to_owned())
}

fn spoken(before: Option<&KeptNic>, nic: &wire::NicRules) -> Result<KeptNic, String> {
    if nic.rules.is_empty() {
        let mut kept = before.cloned().ok_or("as before, and nothing was said before")?;
        Arc::make_mut(&mut kept.rules).generation = nic.generation;
        return Ok(kept);
    }
    let rules: RuleSet = serde_json::from_slice(&nic.rules).map_err(|error| error.to_string())?;
    if rules.nic.id.as_str() != nic.nic {
        return Err(format!("the rules are those of `{}`", rules.nic.id));
    }
    let sets: Result<Vec<SetName>, _> = nic.sets.iter().map(|name| name.parse()).collect();
    Ok(KeptNic { rules: Arc::new(rules), sets: sets.map_err(|error| error.to_string())?, heard_ms: now_ms() })
}

/// The files of an agent.
#[derive(Debug, Clone)]
pub(crate) struct Vault {
    folder: PathBuf,
    key: [u8; 32],
}

impl Vault {
    /// Opens the folder; its key is made at the first time.
    pub(crate) fn open(folder: &Path) -> Result<Self, KeptError> {
        let path = folder.join("keep.key");
        let wrong = |error| KeptError::File(path.clone(), error);
        if !path.exists() {
            write_whole(&path, new_secret().map_err(wrong)?.as_bytes()).map_err(wrong)?;
        }
        let text = fs::read_to_string(&path).map_err(wrong)?;
        Ok(Self {
            folder: folder.to_owned(),
            key: blake3::derive_key("portcullis kept policy 1", text.as_bytes()),
        })
    }

    /// Puts `kept` on the disk, and then raises the floor below which nothing will be believed again.
    pub(crate) fn save(&self, kept: &Kept) -> Result<(), KeptError> {
        let path = self.folder.join("policy.kept");
        let wrong = |error: io::Error| KeptError::File(path.clone(), error);
        let body = serde_json::to_vec(kept).map_err(|error| wrong(error.into()))?;
        write_whole(&path, &self.sealed(&body)).map_err(wrong)?;
        if self.floor()? < kept.version {
            let floor = self.folder.join("floor");
            let text = kept.version.to_string();
            write_whole(&floor, &self.sealed(text.as_bytes()))
                .map_err(|error| KeptError::File(floor, error))?;
        }
        Ok(())
    }

    /// What is kept; nothing if nothing was.
    pub(crate) fn load(&self) -> Result<Kept, KeptError> {
        let Some(body) = self.opened("policy.kept")? else {
            let floor = self.floor()?;
            return match floor {
                0 => Ok(Kept::default()),
                _ => {
                    Err(KeptError::NotBelieved(format!("policy.kept is gone, and version {floor} was there")))
                }
            };
        };
        let kept: Kept = serde_json::from_slice(&body)
            .map_err(|error| KeptError::NotBelieved(format!("policy.kept: {error}")))?;
        let floor = self.floor()?;
        if kept.version < floor {
            let version = kept.version;
            return Err(KeptError::NotBelieved(format!(
                "policy.kept says version {version}, and version {floor} was there"
            )));
        }
        Ok(kept)
    }

    fn floor(&self) -> Result<u64, KeptError> {
        let Some(body) = self.opened("floor")? else { return Ok(0) };
        let number = std::str::from_utf8(&body).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| KeptError::NotBelieved("floor is no number".to_owned()))
    }

    fn sealed(&self, body: &[u8]) -> Vec<u8> {
        [blake3::keyed_hash(&self.key, body).as_bytes(), body].concat()
    }

    fn opened(&self, name: &str) -> Result<Option<Vec<u8>>, KeptError> {
        let path = self.folder.join(name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| KeptError::File(path.clone(), error))?,
        };
        let told = bytes.split_first_chunk::<32>();
        let body =
            told.filter(|(code, body)| blake3::keyed_hash(&self.key, body) == **code).map(|(_, body)| body);
        match body {
            Some(body) => Ok(Some(body.to_vec())),
            None => {
                Err(KeptError::NotBelieved(format!("{} was altered, or another agent's", path.display())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: u64) -> Kept {
        Kept { version, ..Kept::default() }
    }

    #[test]
    fn altered_or_older_files_are_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(folder.path()).unwrap();
        assert_eq!(vault.load().unwrap(), Kept::default());
        vault.save(&version(7)).unwrap();
        let path = folder.path().join("policy.kept");
        let old = fs::read(&path).unwrap();
        vault.save(&version(8)).unwrap();
        let good = fs::read(&path).unwrap();
        assert_eq!(Vault::open(folder.path()).unwrap().load().unwrap(), version(8));
        fs::write(&path, &old).unwrap();
        assert!(matches!(vault.load(), Err(KeptError::NotBelieved(why)) if why.contains("version 8")));
        // Altered so that it reads well: only the code tells.
        let mut altered = good.clone();
        let place = altered.iter().rposition(|byte| *byte == b'8').unwrap();
        altered[place] = b'9';
        assert_eq!(serde_json::from_slice::<Kept>(&altered[32..]).unwrap(), version(9));
        for bytes in [&altered[..], &good[..20], &[]] {
            fs::write(&path, bytes).unwrap();
            assert!(matches!(vault.load(), Err(KeptError::NotBelieved(_))));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(vault.load(), Err(KeptError::NotBelieved(why)) if why.contains("is gone")));
    }

    #[test]
    fn an_order_that_does_not_fit_changes_nothing() {
        let order = |version, base| wire::Order { version, base, ..wire::Order::default() };
        assert!(matches!(version(7).after(&order(6, 0)), Err(KeptError::Older { said: 6, kept: 7 })));
        assert!(matches!(version(7).after(&order(9, 8)), Err(KeptError::Misfit(_))));
        let mut incomplete = order(8, 7);
        incomplete.sets.push(wire::SetChange { name: "s".to_owned(), ..wire::SetChange::default() });
        assert!(matches!(version(7).after(&incomplete), Err(KeptError::Misfit(_))));
        assert_eq!(version(7).after(&order(8, 7)).unwrap(), version(8));
    }
}
