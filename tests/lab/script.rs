//! A scripted firewall: one NIC, a virtual clock, and after every step the whole state compared with the one before.
//!
//! What a step did is told as one line, so that a test asserts the verdict and that nothing else moved: counters that
//! do not follow from the verdict stand in the line too, and so fail the test. Knows the engine's public verbs only.
#![expect(clippy::panic, clippy::expect_used, reason = "a script that cannot be played fails its test")]

mod handover;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use fw_engine::{
    Answer, Answers, Config, Engine, Frame, GuestOffloads, HEAD_LEN, PreparedRules, Tick, Verdict, VnetHeader,
};
use fw_model::{
    By, ConnFilter, ConnInfo, Direction, Explanation, FlowKey, Probe, Reason, RuleCounts, Stats, VerdictName,
};

use crate::wire;

/// A frame that left: which way, its bytes and its virtio-net header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Which way it went.
    pub direction: Direction,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The header that left with it.
    pub vnet: VnetHeader,
}

/// The firewall of one NIC and its clock.
#[derive(Debug)]
pub struct Script {
    engine: Engine,
    answers: Answers,
    now: Tick,
    left: Vec<Left>,
    generation: u64,
    seen: Seen,
}

/// Everything that can be seen of an engine.
#[derive(Debug, Clone)]
struct Seen {
    stats: Stats,
    conns: BTreeMap<FlowKey, ConnInfo>,
}

/// What every script's engine is made with.
pub const CONFIG: Config = Config { conns: 65_536, fragments: 1 << 20, hash_key: [9; 16], mtu: 1500 };

impl Script {
    /// A firewall with these rules, swept.
    ///
    /// # Panics
    /// If the rules are refused.
    #[must_use]
    pub fn new(rules: &str) -> Self {
        let mut script = Self::without_rules();
        script.install(rules);
        script.wait_ms(0);
        script
    }

    /// A firewall that got no rules yet. Its guest's driver can receive everything.
    #[must_use]
    pub fn without_rules() -> Self {
        Self::with_config(CONFIG)
    }

    /// A firewall without rules, made otherwise.
    #[must_use]
    pub fn with_config(config: Config) -> Self {
        let mut engine = Engine::new(config);
        engine.set_guest_offloads(GuestOffloads { csum: true, tso4: true, tso6: true, ecn: true });
        let now = Tick(1_000);
        let seen = Seen::of(&engine, now);
        Self {
            engine,
            answers: Answers::with_capacity(32, 1 << 16),
            now,
            left: Vec::new(),
            generation: 0,
            seen,
        }
    }

    /// The engine itself.
    pub const fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// What the clock says.
    #[must_use]
    pub const fn now(&self) -> Tick {
        self.now
    }

    /// The frames that left during the last step.
    #[must_use]
    pub fn left(&self) -> &[Left] {
        &self.left
    }

    /// Those of them that went this way, as bytes.
    #[must_use]
    pub fn left_to(&self, direction: Direction) -> Vec<Vec<u8>> {
        self.left.iter().filter(|left| left.direction == direction).map(|left| left.bytes.clone()).collect()
    }

    /// Puts rules in force; what that did at once.
    ///
    /// # Panics
    /// If the rules are refused.
    pub fn install(&mut self, rules: &str) -> String {
        self.left.clear();
        self.engine.install(prepared(rules, self.generation), self.now);
        self.generation += 1;
        let stats = self.engine.stats(self.now);
        assert_eq!((stats.generation, stats.enforced), (Some(self.generation), Some(self.generation)));
        self.told(String::new(), &Implied::default())
    }

    /// The guest sends a frame.
    pub fn out(&mut self, frame: &[u8]) -> String {
        self.frame(Direction::Out, frame, VnetHeader::NONE)
    }

    /// The network sends a frame.
    pub fn in_(&mut self, frame: &[u8]) -> String {
        self.frame(Direction::In, frame, VnetHeader::NONE)
    }

    /// A frame with a claim. First its head is shown; the rest only if it is asked for.
    ///
    /// # Panics
    /// If what leaves is not what was judged.
    pub fn frame(&mut self, direction: Direction, frame: &[u8], vnet: VnetHeader) -> String {
        self.left.clear();
        let head = frame.get(..HEAD_LEN).unwrap_or(frame);
        let mut answer = self.ask(Frame { direction, bytes: head, length: frame.len(), vnet });
        if answer.verdict == Verdict::NeedWhole {
            answer = self.ask(Frame { direction, bytes: frame, length: frame.len(), vnet });
            assert_ne!(answer.verdict, Verdict::NeedWhole, "a whole frame is asked for whole");
        }
        let line = self.line(&answer);
        let rule = answer.rule.and_then(|slot| self.engine.rule_id(slot)).map(ToString::to_string);
        let mut implied = Implied { bytes: frame.len(), rule, ..Implied::default() };
        match answer.verdict {
            Verdict::Pass(permit) => {
                assert_eq!(permit.direction(), direction, "a permit for the other way");
                implied.forwarded = Some((direction, 1));
                let mut bytes = frame.to_vec();
                permit.finish(&mut bytes);
                bytes.truncate(permit.length());
                self.left.push(Left { direction, bytes, vnet: permit.vnet() });
            }
            Verdict::Release => implied.forwarded = Some((direction, 0)),
            Verdict::Drop | Verdict::Reject => implied.refused = Some(answer.reason),
            Verdict::Hold | Verdict::NeedWhole => {}
        }
        implied.opened = answer.reason == Reason::New && answer.by == By::Rule;
        if let Some((_, frames @ 0)) = &mut implied.forwarded {
            self.collect();
            assert!(self.left.iter().all(|left| left.direction == direction), "released the wrong way");
            *frames = u64::try_from(self.left.len()).unwrap_or(u64::MAX);
        }
        self.told(line, &implied)
    }

    /// Whole frames in one batch, without claims: each one's verdict.
    pub fn batch(&mut self, frames: &[(Direction, Vec<u8>)]) -> Vec<String> {
        let mut batch = Vec::new();
        for (direction, bytes) in frames {
            batch.push(Frame { direction: *direction, bytes, length: bytes.len(), vnet: VnetHeader::NONE });
        }
        self.engine.judge(&batch, self.now, &mut self.answers);
        let answers: Vec<_> = self.answers.drain().collect();
        self.collect();
        self.seen = Seen::of(&self.engine, self.now);
        answers.iter().map(|answer| self.line(answer)).collect()
    }

    /// Lets time pass, as a worker does: whenever something is due, at that very moment.
    pub fn wait_ms(&mut self, ms: u64) -> String {
        self.left.clear();
        let end = self.now.after_ms(ms);
        while let Some(due) = self.engine.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.engine.expire(self.now, &mut self.answers);
        }
        self.now = end;
        self.told(String::new(), &Implied::default())
    }

    /// As [`Script::wait_ms`].
    pub fn wait_s(&mut self, s: u64) -> String {
        self.wait_ms(s * 1000)
    }

    /// Moves the clock without telling the engine.
    pub fn jump_ms(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        self.seen = Seen::of(&self.engine, self.now);
    }

    /// Closes the conns that match; what that did.
    pub fn kill(&mut self, filter: &ConnFilter) -> String {
        self.left.clear();
        let killed = self.engine.kill(filter, self.now, &mut self.answers);
        self.told(format!("killed {killed}"), &Implied::default())
    }

    /// What the engine says would happen to a first frame; that this changes nothing is checked.
    pub fn explain(&mut self, probe: &Probe) -> String {
        self.left.clear();
        let Explanation { verdict, reason, by, rule } = self.engine.explain(probe, self.now);
        let verdict = match verdict {
            VerdictName::Pass => "pass",
            VerdictName::Drop => "drop",
            VerdictName::Hold => "hold",
            VerdictName::Reject => "reject",
        };
        let rule = rule.map_or_else(String::new, |rule| format!(" {rule}"));
        self.told(format!("{verdict}: {reason} by {}{rule}", name_of(by)), &Implied::default())
    }

    fn ask(&mut self, frame: Frame<'_>) -> Answer {
        self.engine.judge(&[frame], self.now, &mut self.answers);
        let mut answers = self.answers.drain();
        let answer = answers.next().expect("an answer per frame");
        assert_eq!(answers.next(), None, "one answer per frame");
        answer
    }

    fn line(&self, answer: &Answer) -> String {
        let verdict = match answer.verdict {
            Verdict::Pass(_) => "pass",
            Verdict::Release => "release",
            Verdict::Hold => "hold",
            Verdict::Drop => "drop",
            Verdict::Reject => "reject",
            Verdict::NeedWhole => "need whole",
        };
        let rule = match answer.rule {
            Some(slot) => match self.engine.rule_id(slot) {
                Some(id) => format!(" {id}"),
                None => " of a forgotten rule".to_owned(),
            },
            None => String::new(),
        };
        let log = if answer.log { ", logged" } else { "" };
        format!("{verdict}: {} by {}{rule}{log}", answer.reason, name_of(answer.by))
    }

    fn collect(&mut self) {
        let left = &mut self.left;
        self.answers.for_each_emission(|permit, bytes, _| {
            assert_eq!(permit.length(), bytes.len(), "an emission of another length than its permit's");
            left.push(Left { direction: permit.direction(), bytes: bytes.to_vec(), vnet: permit.vnet() });
        });
    }

    /// The line, and behind it everything that moved beyond what it implies.
    fn told(&mut self, mut line: String, implied: &Implied) -> String {
        // What the verdict itself let go is here already.
        let own = self.left.len();
        self.collect();
        for left in self.left.iter().skip(own) {
            let to = if left.direction == Direction::In { "guest" } else { "net" };
            tell(&mut line, &format!("{} to {to}", wire::describe(&left.bytes)));
        }
        let after = Seen::of(&self.engine, self.now);
        self.seen.conns_moved(&after, &mut line);
        self.seen.counts_moved(&after.stats, implied, &mut line);
        self.seen = after;
        line
    }
}

/// The rules of a text, ready to be put in force after generation `previous`.
///
/// # Panics
/// If they are refused.
#[must_use]
pub fn prepared(rules: &str, previous: u64) -> Arc<PreparedRules> {
    let rules =
        vhost_fw::rules_file::parse(rules, "script", previous).unwrap_or_else(|error| panic!("{error}"));
    Arc::new(PreparedRules::new(rules).unwrap_or_else(|error| panic!("{error}")))
}

/// The counters a verdict moves.
#[derive(Debug, Default)]
struct Implied {
    forwarded: Option<(Direction, u64)>,
    refused: Option<Reason>,
    rule: Option<String>,
    bytes: usize,
    opened: bool,
}

const fn name_of(by: By) -> &'static str {
    match by {
        By::Rule => "rule",
        By::Conn => "conn",
        By::Guard => "guard",
        By::Default => "default",
    }
}

fn tell(line: &mut String, what: &str) {
    if !line.is_empty() {
        line.push_str("; ");
    }
    line.push_str(what);
}

impl Seen {
    fn of(engine: &Engine, now: Tick) -> Self {
        let conns = engine.conns(&ConnFilter::default(), usize::MAX, now);
        let stats = engine.stats(now);
        assert!(conns.len() as u64 <= stats.conns, "more conns are shown than live");
        Self { stats, conns: conns.into_iter().map(|conn| (conn.flow, conn)).collect() }
    }

    fn conns_moved(&self, after: &Self, line: &mut String) {
        let rule = |conn: &ConnInfo| {
            conn.rule.as_ref().map_or_else(|| "the default".to_owned(), ToString::to_string)
        };
        for (flow, before) in &self.conns {
            match after.conns.get(flow) {
                None => tell(line, &format!("closed {}", before.state)),
                Some(now) if now.state != before.state => {
                    tell(line, &format!("{} -> {}", before.state, now.state))
                }
                Some(now) if rule(now) != rule(before) => tell(line, &format!("now by {}", rule(now))),
                Some(_) => {}
            }
        }
        for conn in after.conns.values().filter(|conn| !self.conns.contains_key(&conn.flow)) {
            tell(line, &format!("opened {}", conn.state));
        }
    }

    /// Counters that moved otherwise than the verdict says.
    fn counts_moved(&self, after: &Stats, implied: &Implied, line: &mut String) {
        let before = &self.stats;
        let forwarded = |direction| match implied.forwarded {
            Some((way, frames)) if way == direction => frames,
            _ => 0,
        };
        let mut counts = vec![
            ("frames out".to_owned(), before.frames.out, after.frames.out, forwarded(Direction::Out)),
            ("frames in".to_owned(), before.frames.in_, after.frames.in_, forwarded(Direction::In)),
        ];
        let of = |stats: &Stats, reason: Reason| stats.drops.get(&reason).copied().unwrap_or(0);
        for reason in Reason::ALL {
            let due = u64::from(implied.refused == Some(*reason));
            counts.push((format!("drops {reason}"), of(before, *reason), of(after, *reason), due));
        }
        for (id, counted) in &after.rules {
            let old = before.rules.get(id).copied().unwrap_or_default();
            let is_it = implied.rule.as_deref() == Some(id.as_str());
            rule_counts(id.as_str(), &old, counted, implied, is_it, &mut counts);
            assert!(!is_it || counted.last_hit_s == Some(0), "{id} was hit just now");
        }
        for (name, old, new, due) in counts {
            if new != old + due {
                let moved = i128::from(new) - i128::from(old + due);
                let _ = write!(line, "{}{name} {moved:+}", if line.is_empty() { "" } else { "; " });
            }
        }
        if let Some(swept) = after.swept.filter(|_| after.swept != before.swept) {
            tell(line, &format!("swept {swept}"));
        }
        assert!(!after.frozen && after.log_lost == 0, "the shell's fields are the shell's");
    }
}

fn rule_counts(
    id: &str,
    old: &RuleCounts,
    new: &RuleCounts,
    implied: &Implied,
    is_it: bool,
    counts: &mut Vec<(String, u64, u64, u64)>,
) {
    let (hit, bytes) = (u64::from(is_it), if is_it { implied.bytes as u64 } else { 0 });
    counts.push((format!("{id} frames"), old.frames, new.frames, hit));
    counts.push((format!("{id} bytes"), old.bytes, new.bytes, bytes));
    counts.push((format!("{id} conns"), old.conns, new.conns, u64::from(is_it && implied.opened)));
}
