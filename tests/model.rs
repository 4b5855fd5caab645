//! The engine against a second, stupid firewall: random frames, rule swaps, time jumps, and handovers to another engine
//! whose clock is its own.
//!
//! `FW_MODEL_STEPS` sets the number of steps, `FW_MODEL_SEED` where they start; a failure names both.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a panic here is the report"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use fw_engine::{Answers, Arrival, Config, Engine, Frame, PreparedRules, Tick, Trust, Verdict, VnetHeader};
use fw_model::{
    Action, Addr, AddressSet, ConnFilter, DefaultAction, Defaults, Direction, FlowKey, IcmpMatch, MacAddr,
    Member, OnRevoke, PortRange, Protocol, ProtocolMatch, Reason, RemoteMatch, Rule, RuleId, RuleLimits,
    RuleSet,
};
use fw_tests::model::{Meaning, Model, Tcp};
use fw_tests::random::Random;
use fw_tests::wire::{self, End, Segment};

const GUEST: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const ROUTER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0xfe];
const CONFIG: Config = Config { conns: 65_536, fragments: 1 << 20, hash_key: [3; 16], mtu: 1500 };
const LOCAL: [&str; 2] = ["10.0.0.10", "2001:db8:0:1::10"];
const REMOTES: [&str; 6] =
    ["10.0.0.20", "198.51.100.7", "198.51.100.200", "203.0.113.9", "2001:db8:0:1::20", "2001:db8:ffff::7"];
const PORTS: [u16; 6] = [22, 53, 80, 443, 5432, 8080];

#[test]
fn the_engine_and_a_stupid_firewall_agree() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (steps, seed) = (number("FW_MODEL_STEPS", 1_000_000), number("FW_MODEL_SEED", 20_261_123));
    let mut world = World::new(seed);
    for step in 0..steps {
        if let Err(why) = world.step() {
            panic!("seed {seed}, step {step}, at {} ms: {why}", world.now.0);
        }
    }
    assert!(world.handed_over > steps / 2_000, "{} conns were handed over", world.handed_over);
    assert!(
        world.passed > steps / 20 && world.refused > steps / 20,
        "{} and {}",
        world.passed,
        world.refused
    );
}

/// An honest TCP conversation: what each end will say next.
struct Talk {
    opener: Direction,
    guest: End,
    peer: End,
    /// Next sequence number of opener and answerer.
    next: [u32; 2],
    /// What each has acknowledged of the other.
    acked: [u32; 2],
    said: Vec<Tcp>,
    fins: [bool; 2],
}

struct World {
    random: Random,
    engine: Engine,
    model: Model,
    answers: Answers,
    /// What the model's clock says.
    now: Tick,
    /// How far the engine's clock is ahead of it, in milliseconds.
    ahead_ms: u64,
    generation: u64,
    talks: Vec<Talk>,
    handed_over: u64,
    passed: u64,
    refused: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let rules = rules(&mut random, 1);
        let mut engine = Engine::new(CONFIG);
        engine.install(Arc::new(PreparedRules::new(rules.clone()).unwrap()), Tick(0));
        let answers = Answers::with_capacity(32, 1 << 16);
        let model = Model::new(rules);
        Self {
            random,
            engine,
            model,
            answers,
            now: Tick(0),
            ahead_ms: 0,
            generation: 1,
            talks: Vec::new(),
            handed_over: 0,
            passed: 0,
            refused: 0,
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.now = self.now.after_ms(1 + self.random.below(20));
        if self.random.once_in(400) {
            let seconds = *self.random.one_of(&[1, 9, 11, 29, 31, 59, 61, 119, 121, 299, 301, 7_439, 7_441]);
            self.now = self.now.after_s(seconds);
        }
        if self.random.once_in(700) {
            self.generation += 1;
            let rules = rules(&mut self.random, self.generation);
            self.engine.install(Arc::new(PreparedRules::new(rules.clone()).unwrap()), self.engine_now());
            self.model.install(rules, self.now.0);
        }
        self.pass_time();
        // After the sweep: what leaves before it is judged by the new home's rules alone.
        if self.random.once_in(1_500) {
            self.hand_over()?;
        }
        match self.random.below(10) {
            0..=2 => self.datagram()?,
            3 => self.echo()?,
            4 => self.lie()?,
            _ => self.talk()?,
        }
        if self.random.once_in(500) {
            let living = self.engine.conns(&ConnFilter::default(), usize::MAX, self.engine_now());
            let (engine, model) = (living.len(), self.model.conns(self.now.0));
            if engine != model {
                return Err(format!("the engine has {engine} conns, the model {model}"));
            }
        }
        Ok(())
    }

    const fn engine_now(&self) -> Tick {
        self.now.after_ms(self.ahead_ms)
    }

    /// Another engine takes over, with the rules in force or with others that give conns other times to live.
    fn hand_over(&mut self) -> Result<(), String> {
        let rules = if self.random.once_in(3) {
            self.model.rules().clone()
        } else {
            self.generation += 1;
            let mut rules = rules(&mut self.random, self.generation);
            rules.timers.established = *self.random.one_of(&[50, 300, 7_440]);
            rules.timers.udp_replied = *self.random.one_of(&[40, 120, 180]);
            rules
        };
        let (left, names) = self.leaving();
        self.ahead_ms = self.random.below(10_000_000);
        let now = self.engine_now();
        self.engine = Engine::new(Config { hash_key: [self.random.next() as u8; 16], ..CONFIG });
        self.engine.install(Arc::new(PreparedRules::new(rules.clone()).unwrap()), now);
        self.model.hand_over(rules, self.now.0);
        let trust = *self.random.one_of(&[Trust::Exact, Trust::Resuming]);
        let (mut living, mut revoked) = (0, 0);
        for piece in left.chunks(1 + self.random.below(100) as usize) {
            let adoption = self.engine.adopt(piece, &names, trust, now);
            living += adoption.kept + adoption.judged_again;
            revoked += adoption.refused.get(&Reason::Revoked).copied().unwrap_or_default();
            if adoption.refused.keys().any(|reason| *reason != Reason::Revoked) {
                return Err(format!("a living conn is not adopted: {adoption:?}"));
            }
        }
        self.handed_over += living;
        let model = self.model.conns(self.now.0) as u64;
        if living + revoked != left.len() as u64 || living != model {
            return Err(format!("of {} conns {living} arrived, the model has {model}", left.len()));
        }
        // Nothing of it can arrive twice.
        let again = self.engine.adopt(&left, &names, trust, now);
        if again.kept + again.judged_again != 0 {
            return Err(format!("adopted twice: {again:?}"));
        }
        Ok(())
    }

    /// The conns as they leave, in any order, and the rules that admitted them.
    fn leaving(&mut self) -> (Vec<Arrival>, Vec<RuleId>) {
        let (mut left, mut names) = (Vec::new(), Vec::<RuleId>::new());
        let (slots, now) = (self.engine.slots(), self.engine_now());
        let cut = self.random.below(u64::from(slots) + 1) as u32;
        for range in [cut..slots, 0..cut] {
            self.engine.export(range, now, |_, conn, slot| {
                let rule = slot.and_then(|slot| self.engine.rule_id(slot)).map(|id| {
                    names.push(id.clone());
                    names.len() - 1
                });
                left.push(Arrival { conn: *conn, rule });
            });
        }
        (left, names)
    }

    fn pass_time(&mut self) {
        let now = self.engine_now();
        while self.engine.next_due().is_some_and(|due| due <= now) {
            self.engine.expire(now, &mut self.answers);
            self.answers.for_each_emission(|_, _, _| {});
        }
    }

    fn direction(&mut self) -> Direction {
        if self.random.once_in(2) { Direction::Out } else { Direction::In }
    }

    fn ends(&mut self, guest_port: u16, peer_port: u16) -> (End, End) {
        let peer: IpAddr = self.random.one_of(&REMOTES).parse().unwrap();
        let guest: IpAddr = LOCAL[usize::from(peer.is_ipv6())].parse().unwrap();
        (End { mac: GUEST, ip: guest, port: guest_port }, End { mac: ROUTER, ip: peer, port: peer_port })
    }

    fn datagram(&mut self) -> Result<(), String> {
        let (guest_port, peer_port) = (*self.random.one_of(&PORTS), *self.random.one_of(&PORTS));
        let (guest, peer) = self.ends(guest_port, peer_port);
        let direction = self.direction();
        let (from, to) = orient(direction, guest, peer);
        let frame = wire::udp(&from, &to, b"datagram");
        self.compare(&frame, flow(Protocol::UDP, &guest, &peer), direction, Meaning::Datagram).map(|_| ())
    }

    fn echo(&mut self) -> Result<(), String> {
        let (guest, peer) = self.ends(0, 0);
        let (direction, request) = (self.direction(), self.random.once_in(2));
        let id = 1 + u16::try_from(self.random.below(8)).unwrap();
        let (from, to) = orient(direction, guest, peer);
        let frame = wire::echo(&from, &to, id, request);
        // The identifier is the requester's port.
        let by_guest = request == (direction == Direction::Out);
        let (guest, peer) =
            if by_guest { (End { port: id, ..guest }, peer) } else { (guest, End { port: id, ..peer }) };
        let protocol = if guest.ip.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
        let meaning = if request { Meaning::EchoRequest } else { Meaning::EchoReply };
        self.compare(&frame, flow(protocol, &guest, &peer), direction, meaning).map(|_| ())
    }

    /// A segment that no honest conversation holds.
    fn lie(&mut self) -> Result<(), String> {
        let Some(place) = self.place() else { return Ok(()) };
        let by_opener = self.random.once_in(2);
        let far = 0x4000_0000;
        let talk = &self.talks[place];
        let [mine, theirs] = if by_opener { talk.next } else { [talk.next[1], talk.next[0]] };
        let segment = match self.random.below(4) {
            0 => Segment { payload: 4, ..Segment::ack(mine.wrapping_add(far), theirs) },
            1 => Segment { rst: true, acknowledgement: None, ..Segment::ack(mine.wrapping_sub(far), 0) },
            2 => Segment { payload: 4, ..Segment::ack(mine, theirs.wrapping_add(far)) },
            _ => Segment { rst: true, ..Segment::ack(mine.wrapping_add(far), theirs) },
        };
        if talk.said.len() < 3 {
            return Ok(());
        }
        self.say(place, by_opener, &segment, Meaning::Lie).map(|_| ())
    }

    fn place(&mut self) -> Option<usize> {
        let talks = self.talks.len() as u64;
        (talks > 0).then(|| usize::try_from(self.random.below(talks)).unwrap())
    }

    /// An honest conversation begins or goes on.
    fn talk(&mut self) -> Result<(), String> {
        if self.talks.len() < 4 || (self.talks.len() < 64 && self.random.once_in(8)) {
            let opener = self.direction();
            let ephemeral = 32_768 + u16::try_from(self.random.below(28_000)).unwrap();
            let service = *self.random.one_of(&PORTS);
            let (guest, peer) = match opener {
                Direction::Out => self.ends(ephemeral, service),
                Direction::In => self.ends(service, ephemeral),
            };
            let next = [self.random.next() as u32, self.random.next() as u32];
            self.talks.push(Talk {
                opener,
                guest,
                peer,
                next,
                acked: [0; 2],
                said: Vec::new(),
                fins: [false; 2],
            });
        }
        let Some(place) = self.place() else { return Ok(()) };
        if self.random.once_in(200) {
            self.talks.swap_remove(place);
            return Ok(());
        }
        let (by_opener, step, segment) = self.next_words(place);
        let said = self.say(place, by_opener, &segment, Meaning::Tcp(step))?;
        let talk = &mut self.talks[place];
        if said {
            let length =
                u32::from(segment.syn) + u32::from(segment.fin) + u32::try_from(segment.payload).unwrap();
            let speaker = usize::from(!by_opener);
            talk.next[speaker] = talk.next[speaker].wrapping_add(length);
            talk.acked[speaker] = segment.acknowledgement.unwrap_or_default();
            talk.fins[speaker] |= segment.fin;
            talk.said.push(step);
        }
        if (said && matches!(step, Tcp::Reset | Tcp::DoubtfulReset)) || talk.fins == [true; 2] {
            self.talks.swap_remove(place);
        }
        Ok(())
    }

    fn next_words(&mut self, place: usize) -> (bool, Tcp, Segment) {
        let talk = &self.talks[place];
        let [opener, answerer] = talk.next;
        match talk.said.len() {
            0 => (true, Tcp::Syn, Segment::syn(opener)),
            1 => (false, Tcp::SynAck, Segment { syn: true, ..Segment::ack(answerer, opener) }),
            2 => (true, Tcp::HandshakeAck, Segment::ack(opener, answerer)),
            _ => {
                let both = [self.random.once_in(2), self.random.once_in(2)];
                let by_opener = if talk.fins[0] || talk.fins[1] { talk.fins[1] } else { both[0] };
                let (mine, theirs) = if by_opener { (opener, answerer) } else { (answerer, opener) };
                match self.random.below(30) {
                    0 => (by_opener, Tcp::Fin, Segment { fin: true, ..Segment::ack(mine, theirs) }),
                    1 => {
                        // Beyond what its receiver has acknowledged, a forger might have sent it.
                        let known = talk.acked[usize::from(by_opener)] == mine;
                        let step = if known { Tcp::Reset } else { Tcp::DoubtfulReset };
                        (by_opener, step, Segment { rst: true, ..Segment::ack(mine, theirs) })
                    }
                    n if both[1] => {
                        let payload = usize::try_from(n * 40).unwrap();
                        (by_opener, Tcp::Data, Segment { payload, ..Segment::ack(mine, theirs) })
                    }
                    _ => (by_opener, Tcp::Data, Segment::ack(mine, theirs)),
                }
            }
        }
    }

    fn say(
        &mut self,
        place: usize,
        by_opener: bool,
        segment: &Segment,
        meaning: Meaning,
    ) -> Result<bool, String> {
        let talk = &self.talks[place];
        let (guest, peer) = (talk.guest, talk.peer);
        let direction = if by_opener { talk.opener } else { talk.opener.opposite() };
        let (from, to) = orient(direction, guest, peer);
        let frame = wire::tcp(&from, &to, segment);
        self.compare(&frame, flow(Protocol::TCP, &guest, &peer), direction, meaning)
    }

    fn compare(
        &mut self,
        frame: &[u8],
        flow: FlowKey,
        direction: Direction,
        meaning: Meaning,
    ) -> Result<bool, String> {
        let judged = Frame { direction, bytes: frame, length: frame.len(), vnet: VnetHeader::NONE };
        self.engine.judge(&[judged], self.engine_now(), &mut self.answers);
        let answer = self.answers.drain().next().ok_or("no answer")?;
        self.answers.for_each_emission(|_, _, _| {});
        let passes = matches!(answer.verdict, Verdict::Pass(_));
        let expected = self.model.judge(flow, direction, meaning, self.now.0);
        if passes {
            self.passed += 1
        } else {
            self.refused += 1
        }
        if passes == expected {
            return Ok(passes);
        }
        let named = answer.rule.and_then(|rule| self.engine.rule_id(rule)).map(ToString::to_string);
        Err(format!(
            "{direction} {meaning:?} of {flow}: the engine says {} by {named:?}, the model {}",
            answer.reason,
            if expected { "pass" } else { "no" }
        ))
    }
}

const fn orient(direction: Direction, guest: End, peer: End) -> (End, End) {
    match direction {
        Direction::Out => (guest, peer),
        Direction::In => (peer, guest),
    }
}

fn flow(protocol: Protocol, guest: &End, peer: &End) -> FlowKey {
    FlowKey {
        local: Addr::from(guest.ip),
        remote: Addr::from(peer.ip),
        local_port: guest.port,
        remote_port: peer.port,
        protocol,
        vlan: 0,
    }
}

/// Random rules over the small world.
fn rules(random: &mut Random, generation: u64) -> RuleSet {
    let members = |random: &mut Random| {
        let prefixes =
            ["198.51.100.0/24", "10.0.0.20", "203.0.113.0/28", "2001:db8:ffff::/48", "2001:db8::/32"];
        let picked = prefixes.iter().filter(|_| random.once_in(2)).map(|prefix| prefix.parse().unwrap());
        AddressSet { members: picked.map(|prefix| Member { prefix, mac: None }).collect() }
    };
    let address_sets: BTreeMap<_, _> =
        ["app", "corp"].iter().map(|name| (name.parse().unwrap(), Arc::new(members(random)))).collect();
    let count = random.below(12);
    let rules = (0..count).map(|place| rule(random, place, count)).collect();
    let default = |random: &mut Random| {
        *random.one_of(&[DefaultAction::Drop, DefaultAction::Allow, DefaultAction::Reject])
    };
    let file = format!(
        "nic: {{id: model, mac: \"{}\", addresses: {LOCAL:?}}}\ndefaults: {{out: drop, in: drop}}\n",
        MacAddr(GUEST)
    );
    let defaults = Defaults { out: default(random), in_: default(random) };
    RuleSet {
        generation,
        defaults,
        address_sets,
        rules,
        ..vhost_fw::rules_file::parse(&file, "model", 0).unwrap()
    }
}

fn rule(random: &mut Random, place: u64, count: u64) -> Rule {
    let protocol = *random.one_of(&[
        ProtocolMatch::Usual,
        ProtocolMatch::Tcp,
        ProtocolMatch::Udp,
        ProtocolMatch::Icmp,
        ProtocolMatch::Any,
    ]);
    let has_ports = matches!(protocol, ProtocolMatch::Tcp | ProtocolMatch::Udp) && random.once_in(2);
    let ports = if has_ports {
        let port = *random.one_of(&PORTS);
        vec![PortRange::new(port, port.saturating_add(u16::try_from(random.below(500)).unwrap())).unwrap()]
    } else {
        Vec::new()
    };
    let icmp = if protocol == ProtocolMatch::Icmp && random.once_in(2) {
        vec![random.one_of(&["echo-request", "8", "destination-unreachable"]).parse::<IcmpMatch>().unwrap()]
    } else {
        Vec::new()
    };
    let remote = match random.below(4) {
        0 => vec![RemoteMatch::Set("app".parse().unwrap())],
        1 => vec![
            RemoteMatch::Set("corp".parse().unwrap()),
            RemoteMatch::Prefix("10.0.0.0/24".parse().unwrap()),
        ],
        2 => vec![RemoteMatch::Prefix("2001:db8:0:1::/64".parse().unwrap())],
        _ => Vec::new(),
    };
    let forward = place + 1 < count && random.once_in(6);
    let action = if forward {
        Action::Pass(format!("r{}", place + 1 + random.below(count - place - 1)).parse().unwrap())
    } else {
        random.one_of(&[Action::Allow, Action::Allow, Action::Drop, Action::Reject]).clone()
    };
    Rule {
        id: format!("r{place}").parse().unwrap(),
        direction: if random.once_in(2) { Direction::Out } else { Direction::In },
        action,
        protocol,
        remote,
        ports,
        icmp,
        ethertype: None,
        log: false,
        helper: None,
        expires_in_ms: None,
        on_revoke: *random.one_of(&[OnRevoke::Kill, OnRevoke::Drain, OnRevoke::Keep]),
        limits: RuleLimits { conns: None, new_per_s: None },
        reply_from: Vec::new(),
    }
}
