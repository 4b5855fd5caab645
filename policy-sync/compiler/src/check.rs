//! All that is wrong with an intent as a whole: unknown names, cycles, what belongs to others, what cannot be meant.
//!
//! Knows every declaration and every use. Never knows text, nor which NIC carries what.

mod groups;
mod inventory;
mod policies;

use fw_document::read::suggestion;

use crate::diagnostic::{Findings, Place};
use crate::group::{Placed, Share};
use crate::intent::Intent;
use crate::name::{Name, Owner, Ref};

/// Most rules of all policies.
const RULES_MAX: usize = 200_000;
/// Most groups.
const GROUPS_MAX: usize = 100_000;
/// Most workloads.
const WORKLOADS_MAX: usize = 1_000_000;

/// Puts labels and facts where they belong and checks everything.
pub(crate) fn check(intent: &mut Intent, findings: &mut Findings) {
    let rules = intent.policies.values().map(|policy| policy.rules.len()).sum();
    for (count, most, what) in [
        (rules, RULES_MAX, "rules"),
        (intent.groups.len(), GROUPS_MAX, "groups"),
        (intent.workloads.len(), WORKLOADS_MAX, "workloads"),
    ] {
        if count > most {
            findings.error(
                Place { file: 0, line: 1 },
                format!("{count} {what} are more than the {most} there may be"),
            );
            return;
        }
    }
    inventory::take_taggings(intent, findings);
    let checker = Checker { intent, findings };
    checker.everything();
}

struct Checker<'a> {
    intent: &'a Intent,
    findings: &'a mut Findings,
}

impl Checker<'_> {
    fn everything(mut self) {
        self.owners();
        self.inventory();
        self.groups();
        self.policies();
    }

    /// Every owner is declared.
    fn owners(&mut self) {
        let intent = self.intent;
        let groups = intent.groups.iter().map(|(key, group)| (&key.owner, group.place));
        let services = intent.services.iter().map(|(key, service)| (&key.owner, service.place));
        let policies = intent.policies.iter().map(|(key, policy)| (&key.owner, policy.place));
        let keys = intent
            .label_keys
            .iter()
            .flat_map(|(owner, keys)| keys.values().map(move |key| (owner, key.place)));
        let mut told = std::collections::BTreeSet::new();
        for (owner, place) in groups.chain(services).chain(policies).chain(keys) {
            if let Owner::Tenant(tenant) = owner
                && !intent.tenants.contains_key(tenant)
                && told.insert((tenant, place.file))
            {
                self.tenant(tenant, place);
            }
        }
        for (owner, keys) in &intent.label_keys {
            let Owner::Tenant(tenant) = owner else { continue };
            for (key, declared) in keys {
                if intent.label_key(tenant, key).is_some_and(|found| found.owner == Owner::Provider) {
                    self.findings.error(
                        declared.place,
                        format!("label key `{key}` is the provider's; choose another name"),
                    );
                }
            }
        }
    }

    fn tenant(&mut self, tenant: &Name, place: Place) {
        if !self.intent.tenants.contains_key(tenant) {
            self.unknown("tenant", tenant.as_str(), self.intent.tenants.keys().map(Name::as_str), place);
        }
    }

    fn unknown<'n>(&mut self, what: &str, name: &str, known: impl Iterator<Item = &'n str>, place: Place) {
        if self.findings.is_full() {
            return self.findings.error(place, String::new());
        }
        // Asking a million names takes longer than reading them helps.
        let known: Vec<&str> = known.take(1000).collect();
        self.findings.error(place, format!("there is no {what} `{name}`{}", suggestion(name, &known)));
    }

    /// A group named by `user`: there, and shown to them.
    fn group(&mut self, named: &Placed<Ref>, user: &Owner) {
        let Ref { owner, name } = &named.value;
        let found = self.intent.groups.get(&named.value);
        if found.is_some_and(|group| is_shown(&group.share, owner, user)) {
            return;
        }
        if owner == user {
            let own = self.intent.groups.keys().filter(|key| &key.owner == user).map(|key| key.name.as_str());
            self.unknown("group", name.as_str(), own, named.place);
            return;
        }
        let shown = self
            .intent
            .groups
            .iter()
            .filter(|(key, group)| &key.owner == owner && is_shown(&group.share, owner, user));
        let shown: Vec<&str> = shown.map(|(key, _)| key.name.as_str()).take(1000).collect();
        let message =
            format!("{owner} shares no group `{name}` with {user}{}", suggestion(name.as_str(), &shown));
        self.findings.error(named.place, message);
    }
}

fn is_shown(share: &Share, owner: &Owner, user: &Owner) -> bool {
    owner == user
        || *user == Owner::Provider
        || match share {
            Share::Nobody => false,
            Share::All => true,
            Share::Tenants(tenants) => {
                tenants.iter().any(|tenant| matches!(user, Owner::Tenant(user) if *user == tenant.value))
            }
        }
}
