//! Labels and facts as they are written: who says what of which workload, and where.
//!
//! Knows what is declared and who owns it. Never knows what a group makes of it.

use crate::change::ChangeError;
use crate::form::SharedForm;
use crate::inventory::Tag;
use crate::name::{Name, Owner};

/// What kind of word it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TagKind {
    /// What its owner says of a workload.
    Label,
    /// What others found out about it.
    Fact,
}

/// One label or fact of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged<'f> {
    /// The workload.
    pub workload: &'f Name,
    /// Whose it is.
    pub tenant: &'f Name,
    /// Label or fact.
    pub kind: TagKind,
    /// The key.
    pub key: &'f Name,
    /// The value.
    pub value: &'f Name,
    /// Who wrote it.
    pub author: &'f Owner,
    /// File and line, as `FILE:LINE`.
    pub place: String,
}

impl SharedForm {
    /// Every label and fact, by workload.
    pub fn tags(&self) -> impl Iterator<Item = Tagged<'_>> {
        self.workloads.iter().flat_map(|entry| {
            let of = |kind: TagKind, key, tag| self.tagged(entry, kind, key, tag);
            let labels = entry.workload.labels.iter().map(move |(key, tag)| of(TagKind::Label, key, tag));
            let facts = entry.workload.facts.iter().map(move |(key, tag)| of(TagKind::Fact, key, tag));
            labels.chain(facts)
        })
    }

    fn tagged<'f>(
        &'f self,
        entry: &'f crate::membership::Numbered,
        kind: TagKind,
        key: &'f Name,
        tag: &'f Tag,
    ) -> Tagged<'f> {
        let (workload, tenant) = (&entry.name, &entry.workload.tenant);
        let place = self.intent.shown(tag.place);
        Tagged { workload, tenant, kind, key, value: &tag.value, author: &tag.author, place }
    }

    /// Who may set this key of a workload.
    ///
    /// # Errors
    /// There is no such workload or key.
    pub fn owner_of_key(&self, kind: TagKind, workload: &str, key: &str) -> Result<Owner, ChangeError> {
        let name = |text: &str| Name::try_from(text.to_owned());
        let number = self.numbers.get(workload).copied();
        let entry = number.and_then(|number| self.workload(number));
        let (Some(entry), Ok(key_name)) = (entry, name(key)) else {
            return Err(match name(workload) {
                Ok(workload) if entry.is_none() => ChangeError::NoWorkload(workload),
                Ok(_) | Err(_) => ChangeError::NoName,
            });
        };
        match kind {
            TagKind::Fact if self.intent.fact_keys.contains_key(&key_name) => Ok(Owner::Provider),
            TagKind::Fact => Err(ChangeError::NoKey("fact", key_name)),
            TagKind::Label => {
                let declared = self.intent.label_key(&entry.workload.tenant, &key_name);
                declared.map(|key| key.owner.clone()).ok_or(ChangeError::NoKey("label", key_name))
            }
        }
    }
}
