//! Labels and facts one at a time: kept in a document of their own, `set-by-api`, of whoever owns the key.
//!
//! So versions, history, rollback and audit hold for them as for everything. Knows that document. Never knows another.

use std::collections::BTreeMap;

use policy_compiler::{Change, ChangeError, Name, PROVIDER, SharedForm, TagKind, Tagged};
use serde::{Deserialize, Serialize};

use super::{Applied, Edit, Plane, PlaneError, whole};
use crate::clock::now_ms;
use crate::compiled::{Wanted, retag};
use crate::store::{Key, StoreError};

/// The document's name.
const DOCUMENT: &str = "set-by-api";
/// How often a change is tried again when somebody else was faster.
const TRIES: usize = 8;

/// By workload: values by key.
type Tags = BTreeMap<String, BTreeMap<String, String>>;

/// The compiled policy, if this change can be made to it alone. A word that a document of somebody's own says, too, is for the
/// compiler to refuse.
fn form_for<'w>(before: &'w Wanted, edit: &TagEdit) -> Option<&'w SharedForm> {
    let form = before.form.as_deref()?;
    written(form, edit).is_none_or(|tag| document_of(&tag).is_some()).then_some(form)
}

/// The label or fact as it stands.
fn written<'f>(form: &'f SharedForm, edit: &TagEdit) -> Option<Tagged<'f>> {
    form.tags_of(&edit.workload).find(|tag| tag.kind == edit.kind && tag.key.as_str() == edit.key)
}

/// The document it was set in by the API; `None` if it stands in one of somebody's own.
pub(crate) fn document_of<'t>(tag: &'t Tagged<'_>) -> Option<&'t str> {
    let (file, _line) = tag.place.rsplit_once(':')?;
    let (_owner, name) = file.split_once('/')?;
    (name == DOCUMENT).then_some(file)
}

fn set(form: &mut SharedForm, edit: &TagEdit) -> Result<Change, ChangeError> {
    let name = |text: &str| Name::try_from(text.to_owned()).map_err(|_| ChangeError::NoName);
    let (workload, key) = (name(&edit.workload)?, name(&edit.key)?);
    let value =
        edit.value.as_deref().map(|text| text.parse().map_err(|_| ChangeError::NoName)).transpose()?;
    let owner = form.owner_of_key(edit.kind, &edit.workload, &edit.key)?;
    let file = format!("{owner}/{DOCUMENT}");
    match edit.kind {
        TagKind::Fact => form.set_fact_in(&file, &workload, &key, value),
        TagKind::Label => form.set_label_in(&file, &workload, &key, value, &owner),
    }
}

/// What the document says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Said {
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Tags::is_empty")]
    labels: Tags,
    #[serde(skip_serializing_if = "Tags::is_empty")]
    facts: Tags,
}

/// One label or fact that is set, or taken away.
#[derive(Debug, Clone)]
pub(crate) struct TagEdit {
    /// Label or fact.
    pub(crate) kind: TagKind,
    /// Of which workload.
    pub(crate) workload: String,
    /// Its key.
    pub(crate) key: String,
    /// The value; taken away if absent.
    pub(crate) value: Option<String>,
}

impl Plane {
    /// Who may set this label or fact: `provider` or a tenant.
    pub(crate) fn owner_of_tag(&self, edit: &TagEdit) -> Result<String, PlaneError> {
        let wanted = self.wanted.borrow();
        let owner = wanted.form.as_ref().map(|form| form.owner_of_key(edit.kind, &edit.workload, &edit.key));
        Ok(owner.transpose()?.map_or_else(|| PROVIDER.to_owned(), |owner| owner.to_string()))
    }

    /// Sets a label or fact, or takes it away, as a version of the policy.
    pub(crate) fn tag(&self, edit: &TagEdit, who: &str) -> Result<Applied, PlaneError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.tag_once(edit, who) {
                Err(PlaneError::Store(StoreError::Stale { .. })) if tries < TRIES => {}
                ended => return ended,
            }
        }
    }

    fn tag_once(&self, edit: &TagEdit, who: &str) -> Result<Applied, PlaneError> {
        let owner = self.owner_of_tag(edit)?;
        let key = Key { owner: owner.clone(), name: DOCUMENT.to_owned() };
        let (base, text) = {
            let store = self.store();
            let base = store.head()?;
            (base, store.documents(base)?.remove(&key))
        };
        let mut said = match &text {
            Some(text) => serde_json::from_str(text).map_err(|error| {
                StoreError::Other(format!("document {owner}/{DOCUMENT} was written by hand ({error})"))
            })?,
            None => Said::default(),
        };
        said.tenant = (owner != PROVIDER).then_some(owner);
        let TagEdit { kind, workload, key: name, value } = edit;
        let (word, tags) = match kind {
            TagKind::Label => ("label", &mut said.labels),
            TagKind::Fact => ("fact", &mut said.facts),
        };
        let of_workload = tags.entry(workload.clone()).or_default();
        let note = match value {
            Some(value) => {
                of_workload.insert(name.clone(), value.clone());
                format!("set {word} {name}={value} of {workload}")
            }
            None if of_workload.remove(name).is_none() => return self.nothing_to_remove(edit, base, word),
            None => format!("removed {word} {name} of {workload}"),
        };
        tags.retain(|_, tags| !tags.is_empty());
        let mut change = Edit { base: Some(base), note, ..Edit::default() };
        if said.labels.is_empty() && said.facts.is_empty() {
            change.remove.push(key);
        } else {
            let text = serde_json::to_string_pretty(&said);
            change.put.push((key, text.map_err(|error| StoreError::Other(error.to_string()))?));
        }
        self.apply_by(&change, who, |documents, version, before| match form_for(before, edit) {
            Some(form) => Ok(retag(before, form, version, now_ms(), |form| set(form, edit))?),
            None => whole(documents, version, before),
        })
    }

    /// It is not there, which is what was asked for; or a document says it that is not ours.
    fn nothing_to_remove(&self, edit: &TagEdit, version: u64, word: &str) -> Result<Applied, PlaneError> {
        let wanted = self.wanted.borrow();
        match wanted.form.as_deref().and_then(|form| written(form, edit)) {
            Some(tag) => Err(PlaneError::WrittenElsewhere(
                format!("{word} {}", edit.key),
                edit.workload.clone(),
                tag.place,
            )),
            None => Ok(Applied { version, changed: Vec::new(), gone: Vec::new(), warnings: Vec::new() }),
        }
    }
}
