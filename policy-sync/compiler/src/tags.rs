//! Labels and facts as they are written: who says what of which workload, and where.
//!
//! Knows what is declared and who owns it. Never knows what a group makes of it.

use crate::change::{Change, ChangeError};
use crate::diagnostic::Place;
use crate::form::SharedForm;
use crate::inventory::Tag;
use crate::membership::Numbered;
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
        self.workloads.iter().flat_map(|entry| self.tags_at(entry))
    }

    /// Those of one workload; none if there is no such workload.
    pub fn tags_of(&self, workload: &str) -> impl Iterator<Item = Tagged<'_>> {
        let entry = self.numbers.get(workload).and_then(|number| self.workload(*number));
        entry.into_iter().flat_map(|entry| self.tags_at(entry))
    }

    fn tags_at<'f>(&'f self, entry: &'f Numbered) -> impl Iterator<Item = Tagged<'f>> {
        let of = |kind: TagKind, key, tag| self.tagged(entry, kind, key, tag);
        let labels = entry.workload.labels.iter().map(move |(key, tag)| of(TagKind::Label, key, tag));
        let facts = entry.workload.facts.iter().map(move |(key, tag)| of(TagKind::Fact, key, tag));
        labels.chain(facts)
    }

    fn tagged<'f>(&'f self, entry: &'f Numbered, kind: TagKind, key: &'f Name, tag: &'f Tag) -> Tagged<'f> {
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

    /// As [`Self::set_fact`], for a fact that is written in `file`.
    ///
    /// # Errors
    /// There is no such workload, key or value.
    pub fn set_fact_in(
        &mut self,
        file: &str,
        workload: &Name,
        key: &Name,
        value: Option<Name>,
    ) -> Result<Change, ChangeError> {
        let change = self.set_fact(workload, key, value)?;
        self.put_in(file, TagKind::Fact, workload, key);
        Ok(change)
    }

    /// As [`Self::set_label`], for a label that is written in `file`.
    ///
    /// # Errors
    /// There is no such workload, key or value, or the key is not the author's.
    pub fn set_label_in(
        &mut self,
        file: &str,
        workload: &Name,
        key: &Name,
        value: Option<Name>,
        author: &Owner,
    ) -> Result<Change, ChangeError> {
        let change = self.set_label(workload, key, value, author)?;
        self.put_in(file, TagKind::Label, workload, key);
        Ok(change)
    }

    /// Says in which file a label or fact stands; its line is not known before the file is read again.
    fn put_in(&mut self, file: &str, kind: TagKind, workload: &Name, key: &Name) {
        let known = self.intent.files.iter().position(|known| known.as_ref() == file);
        let number = known.unwrap_or(self.intent.files.len());
        if known.is_none() {
            self.intent.files.push(file.into());
        }
        let entry = self.numbers.get(workload).and_then(|place| self.workloads.get_mut(*place));
        let tag = entry.and_then(|entry| match kind {
            TagKind::Label => entry.workload.labels.get_mut(key),
            TagKind::Fact => entry.workload.facts.get_mut(key),
        });
        if let Some(tag) = tag {
            tag.place = Place { file: number, line: 1 };
        }
    }
}
