//! A whole move, from the first question to the last, or everything put back.
//!
//! Check the target, let big tables go ahead, have the VMM send the VM, see that table and VM have arrived. It owns no rule
//! and no conn: the firewalls at both ends close and open themselves, so that whatever happens to this program, never two
//! sides forward and never none filters. Knows the order of things. Never knows how they travel.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use conn_snapshot::{Versions, common_version};
use fw_control::{Request, Terms};
use fw_model::{Arrived, HandoverId, NicId};

use crate::ahead::{AheadCounts, AheadOfVm};
use crate::channel::{ChannelError, Credentials};
use crate::config::MigrateArgs;
use crate::host::{Nic, NicError};
use crate::progress::{Phase, Progress};
use crate::report::{NicReport, Report};
use crate::target::{Target, TargetError};
use crate::vmm::{Sending, VmState, Vmm, VmmError};

/// From one look at how far things are to the next.
const LOOK: Duration = Duration::from_millis(50);
/// Looks from one question whether the NICs here still know of the move to the next.
const LOOKS_UNNAMED: u32 = 10;
/// How long table and VM may take to be seen at the target after the VM has left.
const ARRIVAL: Duration = Duration::from_secs(60);

/// Why a VM did not move.
#[derive(Debug, thiserror::Error)]
#[error("{phase}: {cause}; {back}")]
pub struct MoveError {
    /// In which phase.
    pub phase: Phase,
    cause: String,
    back: String,
}

impl MoveError {
    /// The process's exit code: 1 if everything is as it was, 3 if somebody must look.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        if matches!(self.phase, Phase::Verify) { 3 } else { 1 }
    }
}

/// Anything that stops a move.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("{0}")]
    Channel(#[from] ChannelError),
    #[error("{0}")]
    Target(#[from] TargetError),
    #[error("here: {0}")]
    Nic(#[from] NicError),
    #[error("{0}")]
    Vmm(#[from] VmmError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Words(String),
}

/// Moves the VM. `stop` gives it up.
///
/// # Errors
/// It did not move; what was begun is undone as far as can be, and the error says how far.
pub fn migrate(args: &MigrateArgs, stop: &AtomicBool) -> Result<Report, MoveError> {
    let early = |cause: Cause| MoveError {
        phase: Phase::Check,
        cause: cause.to_string(),
        back: Phase::Check.put_back().to_owned(),
    };
    let credentials = Credentials::load(&args.credentials).map_err(|error| early(error.into()))?;
    let target = Target::open(&args.to, &credentials).map_err(|error| early(error.into()))?;
    let vmm = Vmm::open(&args.vmm).map_err(|error| early(error.into()))?;
    let progress = Progress::new();
    Move { args, stop, target, vmm, progress, id: HandoverId::NONE, nics: Vec::new(), phase: Phase::Check }
        .run()
}

/// A move under way.
struct Move<'a> {
    args: &'a MigrateArgs,
    stop: &'a AtomicBool,
    target: Target<'a>,
    vmm: Vmm,
    progress: Progress,
    id: HandoverId,
    nics: Vec<Moving>,
    phase: Phase,
}

/// One NIC of the VM.
struct Moving {
    id: NicId,
    nic: Nic,
    conns: u64,
    ahead: Option<AheadOfVm>,
}

impl Move<'_> {
    fn run(mut self) -> Result<Report, MoveError> {
        match self.steps() {
            Ok(report) => Ok(report),
            Err(cause) => {
                let back = self.put_back();
                Err(MoveError { phase: self.phase, cause: cause.to_string(), back })
            }
        }
    }

    fn steps(&mut self) -> Result<Report, Cause> {
        self.check()?;
        if self.args.check {
            return Ok(self.report(None, Vec::new()));
        }
        self.phase = Phase::Ahead;
        self.announce()?;
        self.wait_for_tables()?;
        self.phase = Phase::Send;
        let downtime_ms = self.send()?;
        self.phase = Phase::Verify;
        let counts: Vec<_> =
            self.nics.iter().map(|moving| moving.ahead.as_ref().map(AheadOfVm::counts)).collect();
        let arrived = self.verify()?;
        let mut report = self.report(downtime_ms, arrived);
        for (nic, ahead) in report.nics.iter_mut().zip(counts) {
            nic.ahead = ahead;
        }
        self.leave(&mut report);
        Ok(report)
    }

    /// Whether the VM can move at all, and every table be taken there.
    fn check(&mut self) -> Result<(), Cause> {
        self.progress.tell(Phase::Check, "asking both ends");
        self.vmm.require_movable()?;
        for id in &self.args.nics {
            let nic = Nic::of(&self.args.run_dir, id);
            let here = nic.terms()?;
            let there = self.target.terms(id)?;
            suit(&here, &there).map_err(|cause| Cause::Words(format!("NIC {id}: {cause}")))?;
            let told = format!("{id}: {} conns, the target has room for {}", here.conns, there.room);
            self.progress.tell(Phase::Check, &told);
            self.nics.push(Moving { id: id.clone(), nic, conns: here.conns, ahead: None });
        }
        Ok(())
    }

    /// Names the handover at both ends; big tables begin to go ahead.
    fn announce(&mut self) -> Result<(), Cause> {
        self.id = new_id()?;
        for moving in &mut self.nics {
            if moving.conns >= self.args.ahead_from {
                let channel = self.target.receive_ahead(&moving.id, self.id)?;
                let nic = moving.nic.hand_over(&Request::SendAhead(self.id))?;
                moving.ahead = Some(AheadOfVm::begin(nic, channel)?);
            } else {
                self.target.tell(&moving.id, Request::ExpectHandover(self.id))?;
                moving.nic.tell(&Request::AnnounceHandover(self.id))?;
            }
        }
        Ok(())
    }

    /// Returns when every table that goes ahead is there; from then on it is kept fresh.
    fn wait_for_tables(&mut self) -> Result<(), Cause> {
        loop {
            let mut all = true;
            let mut told = Vec::new();
            for moving in &self.nics {
                let Some(ahead) = &moving.ahead else { continue };
                let is_there =
                    ahead.is_there().map_err(|cause| Cause::Words(format!("NIC {}: {cause}", moving.id)))?;
                all &= is_there;
                told.push(told_of(&moving.id, &ahead.counts()));
            }
            if !told.is_empty() {
                self.progress.tell(Phase::Ahead, &told.join(", "));
            }
            if all {
                return Ok(());
            }
            self.pause()?;
        }
    }

    /// Has the VMM send the VM; milliseconds of downtime, where it counts them.
    fn send(&mut self) -> Result<Option<u64>, Cause> {
        let said = self.target.await_vm()?;
        let uri = self.args.vm_to.clone().or(said).ok_or_else(|| {
            let how = "nobody says where the target's VMM waits: --vm-to URI, or `receive --vmm … --vm-at URI` there";
            Cause::Words(how.to_owned())
        })?;
        self.progress.tell(Phase::Send, &format!("to {uri}"));
        self.vmm.send(&uri)?;
        let mut looks = 0;
        loop {
            looks += 1;
            if looks % LOOKS_UNNAMED == 0 {
                self.name_again();
            }
            match self.vmm.sending()? {
                Sending::Left(downtime_ms) => return Ok(downtime_ms),
                Sending::Failed(cause) => return Err(Cause::Words(format!("the VMM says {cause}"))),
                Sending::Goes(how) => self.progress.tell(Phase::Send, &how),
            }
            self.pause()?;
        }
    }

    /// A firewall that was started again meanwhile does not know that its table belongs to a move, and the target would
    /// refuse it.
    fn name_again(&self) {
        for moving in &self.nics {
            if moving.nic.terms().is_ok_and(|terms| terms.announced != Some(self.id)) {
                let told = moving.nic.tell(&Request::AnnounceHandover(self.id));
                match told {
                    Ok(()) => {
                        log::warn!("NIC {} was started again: it was told of this move again", moving.id)
                    }
                    Err(error) => {
                        log::warn!("NIC {} does not know of this move any more: {error}", moving.id)
                    }
                }
            }
        }
    }

    /// Every table was taken there, and the VM runs where that can be asked.
    fn verify(&mut self) -> Result<Vec<NicReport>, Cause> {
        let mut nics = Vec::new();
        let end = self.progress.seconds() + ARRIVAL.as_secs_f64();
        for place in 0..self.nics.len() {
            let Some(id) = self.nics.get(place).map(|moving| moving.id.clone()) else { break };
            while self.target.terms(&id)?.taken != Some(self.id) {
                self.progress.tell(Phase::Verify, &format!("waiting for {id}'s table"));
                self.wait_until(end, || format!("NIC {id} took no table of this handover"))?;
            }
            match self.target.stats(&id)?.arrived {
                Some(Arrived::Adopted(conns)) => nics.push(NicReport { nic: id, conns, ahead: None }),
                Some(Arrived::Refused(why)) => {
                    return Err(Cause::Words(format!("NIC {id} refused the table: {why}")));
                }
                Some(Arrived::Emptied) | None => {
                    return Err(Cause::Words(format!("NIC {id} runs with an empty table (--restore empty)")));
                }
            }
        }
        while self.target.vm_state()?.is_some_and(|state| state != VmState::Running) {
            self.progress.tell(Phase::Verify, "waiting for the VM to run");
            self.wait_until(end, || "the VM does not run at the target".to_owned())?;
        }
        self.progress.tell(Phase::Verify, "the VM runs at the target");
        Ok(nics)
    }

    /// The source has nothing left to do.
    fn leave(&mut self, report: &mut Report) {
        for moving in &mut self.nics {
            moving.ahead = None;
            // What was named once too often is not the next move's name.
            let _ = moving.nic.tell(&Request::CancelHandover);
        }
        if !self.args.keep_source
            && let Err(error) = self.vmm.leave()
        {
            report.warnings.push(format!("the source's VMM does not end: {error}"));
        }
    }

    /// Undoes what was begun; says how far that went.
    fn put_back(&mut self) -> String {
        if matches!(self.phase, Phase::Verify) {
            return format!("{}; look at the target", Phase::Verify.put_back());
        }
        let mut undone = Vec::new();
        if self.phase == Phase::Send {
            match self.bring_back_vm() {
                Ok(Back::Runs) => {}
                Ok(Back::Left) => {
                    self.phase = Phase::Verify;
                    return format!("{}; look at the target", Phase::Verify.put_back());
                }
                Err(error) => undone.push(format!("the VM is not brought back: {error}")),
            }
        }
        if self.phase > Phase::Check {
            for moving in &mut self.nics {
                moving.ahead = None;
                if let Err(error) = moving.nic.tell(&Request::CancelHandover) {
                    undone.push(error.to_string());
                }
                if let Err(error) = self.target.tell(&moving.id, Request::CancelHandover) {
                    undone.push(error.to_string());
                }
            }
        }
        if undone.is_empty() {
            return self.phase.put_back().to_owned();
        }
        format!("put back but for: {}", undone.join("; "))
    }

    /// Stops the VMM's sending and lets the VM run on here, unless it has left by then.
    fn bring_back_vm(&mut self) -> Result<Back, VmmError> {
        let can_stop = self.vmm.cancel()?;
        if !can_stop {
            self.progress.tell(Phase::Send, "this VMM cannot stop sending: waiting for its end");
        }
        loop {
            match self.vmm.sending()? {
                Sending::Left(_) => return Ok(Back::Left),
                Sending::Failed(_) => break,
                Sending::Goes(_) => thread::sleep(LOOK),
            }
        }
        self.vmm.run_on().map(|()| Back::Runs)
    }

    /// A moment, unless the move is given up.
    fn pause(&self) -> Result<(), Cause> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Cause::Words("given up by the operator".to_owned()));
        }
        if self.progress.seconds() > Duration::from_secs(self.args.timeout).as_secs_f64() {
            return Err(Cause::Words(format!("not done after {} s (--timeout)", self.args.timeout)));
        }
        thread::sleep(LOOK);
        Ok(())
    }

    fn wait_until(&self, end_s: f64, why: impl Fn() -> String) -> Result<(), Cause> {
        if self.progress.seconds() > end_s {
            return Err(Cause::Words(why()));
        }
        thread::sleep(LOOK);
        Ok(())
    }

    fn report(&self, downtime_ms: Option<u64>, nics: Vec<NicReport>) -> Report {
        Report { nics, downtime_ms, seconds: self.progress.seconds(), warnings: Vec::new() }
    }
}

/// Where a VM is after a move was given up.
enum Back {
    Runs,
    Left,
}

/// Whether what one end hands over the other end can take.
fn suit(here: &Terms, there: &Terms) -> Result<(), String> {
    let versions = |(oldest, newest)| Versions { oldest, newest };
    if common_version(versions(here.versions), versions(there.versions)).is_none() {
        return Err(format!(
            "no common version of snapshots: {} here, {} at the target",
            versions(here.versions),
            versions(there.versions)
        ));
    }
    if here.key != there.key {
        return Err("both hosts need the same --state-key".to_owned());
    }
    if here.nic != there.nic {
        return Err(format!("the target's NIC is `{}`", there.nic));
    }
    if there.rings_run {
        return Err("the target's NIC serves a VM already".to_owned());
    }
    if here.conns > there.room {
        let (conns, room) = (here.conns, there.room);
        return Err(format!(
            "{conns} conns, and the target has room for {room}: raise its --max-connections"
        ));
    }
    match (here.generation, there.generation) {
        (_, None) => Err("the target's NIC has no rules: install them there first".to_owned()),
        (Some(here), Some(there)) if there < here => Err(format!(
            "the target enforces generation {there}, and here it is {here}: install {here} there first"
        )),
        (Some(_) | None, Some(_)) => Ok(()),
    }
}

fn told_of(nic: &NicId, counts: &AheadCounts) -> String {
    let kib = counts.bytes / 1024;
    format!("{nic}: {} conns, {kib} KiB, {} rounds", counts.conns, counts.rounds)
}

/// A name that nobody had before.
fn new_id() -> std::io::Result<HandoverId> {
    let mut id = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut id)?;
    Ok(HandoverId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms {
            nic: "web-1".parse().unwrap(),
            generation: Some(7),
            conns: 100,
            room: 1000,
            versions: (1, 1),
            key: "k".to_owned(),
            rings_run: false,
            announced: None,
            taken: None,
        }
    }

    #[test]
    fn each_thing_that_does_not_suit_is_told_with_its_remedy() {
        type Spoil = fn(&mut Terms);
        let table: [(Spoil, &str); 7] = [
            (|there| there.versions = (2, 3), "no common version"),
            (|there| there.key.push('x'), "--state-key"),
            (|there| there.nic = "web-2".parse().unwrap(), "`web-2`"),
            (|there| there.rings_run = true, "serves a VM already"),
            (|there| there.room = 99, "--max-connections"),
            (|there| there.generation = None, "no rules"),
            (|there| there.generation = Some(6), "install 7 there first"),
        ];
        assert_eq!(suit(&terms(), &terms()), Ok(()));
        for (spoil, told) in table {
            let mut there = terms();
            spoil(&mut there);
            let why = suit(&terms(), &there).unwrap_err();
            assert!(why.contains(told), "{why}");
        }
        let newer = Terms { generation: Some(8), ..terms() };
        assert_eq!(suit(&terms(), &newer), Ok(()));
    }
}
