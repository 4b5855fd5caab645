//! The control plane: what is wanted, what NICs say they enforce, and the one way from one policy to the next.
//!
//! Knows the store and the compiler. Never knows how a request came nor how an agent is reached.

pub(crate) mod questions;
pub(crate) mod realized;
pub(crate) mod tags;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fw_model::NicId;
use policy_compiler::{ChangeError, Refusal};
use serde::Serialize;
use tokio::sync::watch;

use crate::authority::{self, Authority, AuthorityError};
use crate::clock::now_ms;
use crate::compiled::{Step, Wanted, compile, recompile};
use crate::roles::{Grant, Host, code_of, new_secret};
use crate::store::{Change, DOCUMENT_MAX, DOCUMENTS_MAX, Documents, Key, Store, StoreError};
use questions::Questions;
use realized::Realized;

/// How long a word to enrol is good, milliseconds.
const ENROLMENT_MS: i64 = 3_600_000;

/// What shall become of the policy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edit {
    /// The version it was made for; the newest if absent.
    pub(crate) base: Option<u64>,
    /// Documents that come or change.
    pub(crate) put: Vec<(Key, String)>,
    /// Documents that go.
    pub(crate) remove: Vec<Key>,
    /// What for.
    pub(crate) note: String,
}

/// What became of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Applied {
    /// The version that is wanted now.
    pub(crate) version: u64,
    /// NICs whose rules change.
    pub(crate) changed: Vec<NicId>,
    /// NICs that the policy knows no more.
    pub(crate) gone: Vec<NicId>,
    /// What somebody should look at.
    pub(crate) warnings: Vec<String>,
}

/// Why nothing became of it. What is enforced stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaneError {
    /// The documents are wrong.
    #[error("the policy is refused as a whole")]
    Policy(Refusal),
    /// Too much.
    #[error("{0}")]
    TooMuch(String),
    /// The store says no.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Certificates.
    #[error("{0}")]
    Authority(#[from] AuthorityError),
    /// A label or fact that cannot be.
    #[error("{0}")]
    Tag(#[from] ChangeError),
    /// It is written in a document of somebody's own.
    #[error("{0} of workload {1} is written at {2}: change it there")]
    WrittenElsewhere(String, String, String),
    /// The word to enrol is not good.
    #[error("this word to enrol was used, has ended or was never given: ask for another")]
    Enrolment,
    /// The kernel gives no secret.
    #[error("/dev/urandom: {0}")]
    Secret(std::io::Error),
}

/// What an edit comes to.
struct Next {
    documents: Documents,
    /// Whether they are others than those of before.
    is_news: bool,
    step: Step,
}

/// The control plane.
pub(crate) struct Plane {
    store: Mutex<Box<dyn Store>>,
    wanted: watch::Sender<Arc<Wanted>>,
    pub(crate) realized: Realized,
    pub(crate) questions: Questions,
    pub(crate) authority: Authority,
}

impl Plane {
    /// The control plane over what `store` kept.
    pub(crate) fn new(mut store: Box<dyn Store>, authority: Authority) -> Result<Self, PlaneError> {
        let version = store.head()?;
        let documents = store.documents(version)?;
        let now_ms = now_ms();
        let mut step =
            recompile(&documents, version, &store.generations()?, now_ms).map_err(PlaneError::Policy)?;
        if !step.changed.is_empty() {
            // Another version of this program made other rules of it: a generation of their own, or none would be put in force.
            let note = "this version of policy-sync compiles the policy otherwise";
            let change = change(version, "policy-sync", note, &documents, &step, now_ms);
            let next = store.commit(&change)?;
            for nic in &step.changed {
                if let Some(wanted) = step.wanted.nics.get_mut(nic) {
                    Arc::make_mut(&mut wanted.rules).generation = next;
                }
            }
            step.wanted.version = next;
        }
        let wanted = watch::Sender::new(Arc::new(step.wanted));
        Ok(Self {
            store: Mutex::new(store),
            wanted,
            realized: Realized::default(),
            questions: Questions::default(),
            authority,
        })
    }

    /// The store, while nobody else has it.
    pub(crate) fn store(&self) -> MutexGuard<'_, Box<dyn Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wanted, now and whenever it changes.
    pub(crate) fn wanted(&self) -> watch::Receiver<Arc<Wanted>> {
        self.wanted.subscribe()
    }

    /// What would become of the policy.
    pub(crate) fn plan(&self, edit: &Edit) -> Result<Applied, PlaneError> {
        let store = self.store();
        Ok(applied(&self.next(&**store, edit, whole)?.step))
    }

    /// Makes a new version of the policy, whole or not at all.
    pub(crate) fn apply(&self, edit: &Edit, who: &str) -> Result<Applied, PlaneError> {
        self.apply_by(edit, who, whole)
    }

    /// As [`Self::apply`], with a way of one's own from what is wanted to what the edited documents come to.
    fn apply_by(
        &self,
        edit: &Edit,
        who: &str,
        compile: impl FnOnce(&Documents, u64, &Wanted) -> Result<Step, PlaneError>,
    ) -> Result<Applied, PlaneError> {
        let mut store = self.store();
        let Next { documents, is_news, step } = self.next(&**store, edit, compile)?;
        let base = step.wanted.version.saturating_sub(1);
        if !is_news {
            return Ok(Applied { version: base, ..applied(&step) });
        }
        store.commit(&change(base, who, &edit.note, &documents, &step, now_ms()))?;
        let applied = applied(&step);
        self.wanted.send_replace(Arc::new(step.wanted));
        Ok(applied)
    }

    /// Makes a new version that says what `version` said.
    pub(crate) fn roll_back(&self, version: u64, who: &str) -> Result<Applied, PlaneError> {
        let edit = {
            let store = self.store();
            let base = store.head()?;
            let (now, then) = (store.documents(base)?, store.documents(version)?);
            let remove = now.into_keys().filter(|key| !then.contains_key(key)).collect();
            let note = format!("rolled back to version {version}");
            Edit { base: Some(base), put: then.into_iter().collect(), remove, note }
        };
        self.apply(&edit, who)
    }

    fn next(
        &self,
        store: &dyn Store,
        edit: &Edit,
        compile: impl FnOnce(&Documents, u64, &Wanted) -> Result<Step, PlaneError>,
    ) -> Result<Next, PlaneError> {
        let head = store.head()?;
        if let Some(base) = edit.base.filter(|base| *base != head) {
            return Err(StoreError::Stale { base, found: head }.into());
        }
        let now = store.documents(head)?;
        let mut documents = now.clone();
        for key in &edit.remove {
            if documents.remove(key).is_none() {
                return Err(StoreError::Missing(format!("document {}/{}", key.owner, key.name)).into());
            }
        }
        for (key, text) in &edit.put {
            if text.len() > DOCUMENT_MAX {
                let Key { owner, name } = key;
                return Err(PlaneError::TooMuch(format!(
                    "document {owner}/{name} has {} bytes, and one may have {DOCUMENT_MAX}",
                    text.len()
                )));
            }
            documents.insert(key.clone(), text.clone());
        }
        if documents.len() > DOCUMENTS_MAX {
            let found = documents.len();
            return Err(PlaneError::TooMuch(format!(
                "{found} documents, and a policy may have {DOCUMENTS_MAX}"
            )));
        }
        let before = Arc::clone(&self.wanted.borrow());
        let start = Instant::now();
        let step = compile(&documents, head + 1, &before)?;
        let (ms, changed) = (start.elapsed().as_secs_f64() * 1000.0, step.changed.len());
        log::info!("version {}: compiled in {ms:.1} ms, {changed} NICs change", head + 1);
        Ok(Next { is_news: documents != now, documents, step })
    }

    /// A word with which `host` may enrol once.
    pub(crate) fn invite(&self, host: &str) -> Result<String, PlaneError> {
        let word = new_secret().map_err(PlaneError::Secret)?;
        self.store().add_enrolment(code_of(&word), host, now_ms() + ENROLMENT_MS)?;
        Ok(word)
    }

    /// Certifies the host that comes with a good word.
    pub(crate) fn enrol(&self, word: &str, request: &str) -> Result<(String, String), PlaneError> {
        let mut store = self.store();
        let now_ms = now_ms();
        let host = store.take_enrolment(code_of(word), now_ms)?.ok_or(PlaneError::Enrolment)?;
        let chain = self.authority.for_agent(request, &host)?;
        let keys = vec![authority::code_of_pem(&chain)?];
        store.put_host(&Host { host: host.clone(), keys, enrolled_ms: now_ms, revoked: false })?;
        store.audit(now_ms, &host, "enrolled")?;
        Ok((host, chain))
    }

    /// A new certificate for a host that is trusted. The one before is good until the new one is used.
    pub(crate) fn renew(&self, mut host: Host, request: &str) -> Result<String, PlaneError> {
        let chain = self.authority.for_agent(request, &host.host)?;
        host.keys.push(authority::code_of_pem(&chain)?);
        let surplus = host.keys.len().saturating_sub(2);
        host.keys.drain(..surplus);
        self.store().put_host(&host)?;
        Ok(chain)
    }

    /// The host whose certificate this is, if it is trusted.
    pub(crate) fn host_of(&self, certificate: &[u8]) -> Result<Option<Host>, PlaneError> {
        let code = authority::code_of(certificate);
        let hosts = self.store().hosts()?;
        let mut found = hosts.into_iter().filter(|host| !host.revoked);
        let Some(mut host) = found.find(|host| host.keys.contains(&code)) else { return Ok(None) };
        if host.keys.len() > 1 && host.keys.last() == Some(&code) {
            host.keys = vec![code];
            self.store().put_host(&host)?;
        }
        Ok(Some(host))
    }

    /// Trusts a host no more; whether there is one.
    pub(crate) fn revoke(&self, name: &str, who: &str) -> Result<bool, PlaneError> {
        let mut store = self.store();
        let Some(host) = store.hosts()?.into_iter().find(|host| host.host == name) else { return Ok(false) };
        store.put_host(&Host { revoked: true, ..host })?;
        store.audit(now_ms(), who, &format!("revoked host {name}"))?;
        drop(store);
        self.realized.revoke(name);
        Ok(true)
    }

    /// Keeps a new token; its secret.
    pub(crate) fn add_token(&self, grant: &Grant, who: &str) -> Result<String, PlaneError> {
        let secret = new_secret().map_err(PlaneError::Secret)?;
        let mut store = self.store();
        store.add_token(code_of(&secret), grant)?;
        store.audit(now_ms(), who, &format!("made token {} ({})", grant.name, grant.role))?;
        Ok(secret)
    }
}

fn applied(step: &Step) -> Applied {
    Applied {
        version: step.wanted.version,
        changed: step.changed.clone(),
        gone: step.gone.clone(),
        warnings: step.warnings.iter().map(ToString::to_string).collect(),
    }
}

fn change(base: u64, who: &str, note: &str, documents: &Documents, step: &Step, at_ms: i64) -> Change {
    let code = |nic: &NicId| step.wanted.nics.get(nic).map(|wanted| (nic.to_string(), wanted.code));
    Change {
        base,
        who: who.to_owned(),
        note: note.to_owned(),
        documents: documents.clone(),
        nics: step.changed.iter().filter_map(code).collect(),
        nics_gone: step.gone.iter().map(ToString::to_string).collect(),
        at_ms,
    }
}

/// The whole policy, compiled.
fn whole(documents: &Documents, version: u64, before: &Wanted) -> Result<Step, PlaneError> {
    compile(documents, version, before, now_ms()).map_err(PlaneError::Policy)
}
