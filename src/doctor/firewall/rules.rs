//! The rules of a packet filter, and the walk of one packet through them.
//!
//! Pure. What a rule means is reduced to tests of the packet and an action. A test that is not
//! understood makes its rule a doubt: the walk goes on, and the doubt counts where the rule would
//! have changed the outcome.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::mapping::Protocol;

/// How deep jumps may go: as deep as the kernel lets them.
const DEEPEST: usize = 16;
/// Rules that are walked for one packet: a list may name a chain many times.
const MOST_STEPS: usize = 100_000;

/// A packet that opens a connection.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// TCP or UDP.
    pub(super) protocol: Protocol,
    /// The port that it goes to.
    pub(super) port: u16,
    /// The interface that it comes in by, where that is known.
    pub(super) interface: Option<String>,
    /// Its sender.
    pub(super) from: IpAddr,
    /// The address that it goes to, where that is known.
    pub(super) to: Option<IpAddr>,
}

/// What a test says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It passes the test.
    Yes,
    /// It does not.
    No,
    /// It cannot be told.
    Maybe,
}

impl Answer {
    fn of(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }

    /// The opposite.
    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
        }
    }
}

/// A test of a packet.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    /// Not this.
    Not(Box<Test>),
    /// Neither of both.
    Neither(Box<Test>, Box<Test>),
    /// It came in by one of these interfaces; `+` or `*` at the end stands for anything.
    In(Vec<String>),
    /// It has one of these protocols.
    Protocol(Vec<String>),
    /// It goes to one of these ports.
    To(Vec<(u16, u16)>),
    /// It comes from one of these networks.
    From(Vec<IpNet>),
    /// It goes to one of these networks.
    ToNet(Vec<IpNet>),
    /// Its connection has one of these states.
    State(Vec<String>),
    /// It is of one of these families: `ipv4`, `ipv6`.
    Family(Vec<String>),
    /// It goes to an address of this machine.
    ToThisMachine,
    /// Never so for such a packet.
    Never,
    /// It is not understood.
    Foreign,
}

impl Test {
    fn of(&self, packet: &Packet) -> Answer {
        match self {
            Self::Not(test) => test.of(packet).not(),
            Self::Neither(one, other) => match (one.of(packet), other.of(packet)) {
                (Answer::Yes, _) | (_, Answer::Yes) => Answer::No,
                (Answer::No, Answer::No) => Answer::Yes,
                _ => Answer::Maybe,
            },
            Self::In(names) => match &packet.interface {
                Some(interface) => Answer::of(names.iter().any(|name| is_like(name, interface))),
                None if names.iter().all(|name| name == "lo") => Answer::No,
                None => Answer::Maybe,
            },
            Self::Protocol(all) => Answer::of(all.iter().any(|word| {
                word == packet.protocol.as_str()
                    || *word == number(packet.protocol).to_string()
                    || word == "all"
            })),
            Self::To(ports) => {
                Answer::of(ports.iter().any(|(from, to)| (*from..=*to).contains(&packet.port)))
            }
            Self::From(nets) => Answer::of(nets.iter().any(|net| net.contains(&packet.from))),
            Self::ToNet(nets) => match packet.to {
                Some(to) => Answer::of(nets.iter().any(|net| net.contains(&to))),
                None => Answer::Maybe,
            },
            Self::State(states) => Answer::of(states.iter().any(|state| state.eq_ignore_ascii_case("new"))),
            Self::Family(families) => {
                let own = if packet.from.is_ipv4() { "ipv4" } else { "ipv6" };
                Answer::of(families.iter().any(|family| family == own))
            }
            Self::ToThisMachine => Answer::Yes,
            Self::Never => Answer::No,
            Self::Foreign => Answer::Maybe,
        }
    }
}

fn is_like(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix(['+', '*']) {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It lets the packet in.
    Accept,
    /// It drops it without a word.
    Drop,
    /// It refuses it.
    Reject,
    /// It sends the packet to another address or port.
    Redirect,
    /// It goes on in another chain, and comes back.
    Jump(String),
    /// It goes on in another chain.
    Goto(String),
    /// It goes back to the chain that jumped.
    Return,
    /// Nothing that matters here.
    Nothing,
    /// It is not understood.
    Foreign,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    /// All of them have to hold.
    pub(super) tests: Vec<Test>,
    /// What it does then.
    pub(super) action: Action,
    /// It, for a person.
    pub(super) text: String,
    /// The command that removes it.
    pub(super) removal: Option<String>,
}

impl Rule {
    fn fits(&self, packet: &Packet) -> Answer {
        let mut all = Answer::Yes;
        for test in &self.tests {
            match test.of(packet) {
                Answer::No => return Answer::No,
                Answer::Maybe => all = Answer::Maybe,
                Answer::Yes => {}
            }
        }
        all
    }
}

/// Where packets enter a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    /// `prerouting`, `input` …
    pub(super) name: String,
    /// `filter` or `nat`.
    pub(super) kind: String,
    /// Lower ones come first.
    pub(super) priority: i64,
    /// What happens to a packet at its end.
    pub(super) drops: bool,
}

/// A chain of rules.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chain {
    /// `inet`, `ip`, `ip6` …
    pub(super) family: String,
    /// Its table.
    pub(super) table: String,
    /// Its name.
    pub(super) name: String,
    /// `None` where rules jump to it.
    pub(super) hook: Option<Hook>,
    /// Its rules.
    pub(super) rules: Vec<Rule>,
    /// It was made by iptables.
    pub(super) is_of_iptables: bool,
}

/// All rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Ruleset {
    /// The chains, in any order.
    pub(super) chains: Vec<Chain>,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It gets in.
    Passes,
    /// It is kept out.
    Dropped(Culprit),
    /// It is sent elsewhere.
    Taken(Culprit),
    /// It depends on this rule.
    Unclear(String),
}

/// What keeps a packet out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Culprit {
    /// `a rule drops` and so on.
    pub(super) does: &'static str,
    /// The rule, or the policy of a chain.
    pub(super) rule: String,
    /// The command that removes the rule.
    pub(super) removal: Option<String>,
    /// The family of its chain.
    pub(super) family: String,
    /// The table of its chain.
    pub(super) table: String,
    /// The chain in which the walk began: there the packet can be let in.
    pub(super) base: String,
    /// iptables made it.
    pub(super) is_of_iptables: bool,
}

/// How the walk through a chain ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Accepted,
    Dropped(&'static str, String, Option<String>),
    Taken(String, Option<String>),
    /// Back to the chain that jumped, or to the policy.
    Over,
}

/// A walk through one base chain.
struct Walk<'r> {
    rules: &'r Ruleset,
    packet: &'r Packet,
    /// What rules that are not understood would have done.
    doubts: Vec<(End, String)>,
    steps: usize,
}

impl Ruleset {
    /// Whether there is no rule at all.
    pub(super) fn is_empty(&self) -> bool {
        self.chains.iter().all(|chain| chain.rules.is_empty() && chain.hook.as_ref().is_none_or(|h| !h.drops))
    }

    /// Whether tables of this family have matches of iptables that their list does not show.
    pub(super) fn has_foreign_matches(&self, family: &str) -> bool {
        let chains = self.chains.iter().filter(|chain| chain.family == family);
        chains.flat_map(|chain| &chain.rules).any(|rule| rule.text.contains("xt "))
    }

    /// Whether a chain has such a name.
    pub(super) fn has_chain(&self, fits: impl Fn(&str) -> bool) -> bool {
        self.chains.iter().any(|chain| fits(&chain.name))
    }

    /// Whether there is a table with this name.
    pub(super) fn has_table(&self, name: &str) -> bool {
        self.chains.iter().any(|chain| chain.table == name)
    }

    /// Puts other chains in the place of those of the same tables.
    pub(super) fn replace(&mut self, family: &str, others: Vec<Chain>) {
        let is_replaced =
            |chain: &Chain| chain.family == family && others.iter().any(|other| other.table == chain.table);
        self.chains.retain(|chain| !is_replaced(chain));
        self.add(others);
    }

    /// Adds chains.
    pub(super) fn add(&mut self, others: Vec<Chain>) {
        self.chains.extend(others);
    }

    /// Walks a packet that comes in.
    pub(super) fn walk(&self, packet: &Packet) -> Outcome {
        let families: &[&str] = if packet.from.is_ipv4() { &["inet", "ip"] } else { &["inet", "ip6"] };
        let mut unclear = None;
        for hook in ["prerouting", "input"] {
            let base = |chain: &&Chain| {
                families.contains(&&*chain.family) && chain.hook.as_ref().is_some_and(|h| h.name == hook)
            };
            let mut bases: Vec<&Chain> = self.chains.iter().filter(base).collect();
            bases.sort_by_key(|chain| chain.hook.as_ref().map(|hook| hook.priority));
            for chain in bases {
                match self.through(chain, packet) {
                    Outcome::Passes => {}
                    Outcome::Unclear(rule) => unclear = unclear.or(Some(rule)),
                    outcome => return outcome,
                }
            }
        }
        unclear.map_or(Outcome::Passes, Outcome::Unclear)
    }

    /// Walks a packet through a chain with a hook.
    fn through(&self, base: &Chain, packet: &Packet) -> Outcome {
        let Some(hook) = &base.hook else { return Outcome::Passes };
        let mut walk = Walk { rules: self, packet, doubts: Vec::new(), steps: 0 };
        let mut end = walk.chain(base, 0);
        if end == End::Over && hook.drops {
            let policy = format!("the policy of chain {} {} {}", base.family, base.table, base.name);
            end = End::Dropped("the firewall drops", policy, None);
        }
        let culprit = |does, rule, removal| Culprit {
            does,
            rule,
            removal,
            family: base.family.clone(),
            table: base.table.clone(),
            base: base.name.clone(),
            is_of_iptables: base.is_of_iptables,
        };
        let doubt = |is_other: fn(&End) -> bool| {
            walk.doubts.iter().find(|(end, _)| is_other(end)).map(|(_, rule)| Outcome::Unclear(rule.clone()))
        };
        match end {
            End::Accepted | End::Over => {
                doubt(|end| matches!(end, End::Dropped(..) | End::Taken(..))).unwrap_or(Outcome::Passes)
            }
            End::Dropped(does, rule, removal) => doubt(|end| *end == End::Accepted)
                .unwrap_or_else(|| Outcome::Dropped(culprit(does, rule, removal))),
            End::Taken(rule, removal) => doubt(|end| *end == End::Accepted)
                .unwrap_or_else(|| Outcome::Taken(culprit("", rule, removal))),
        }
    }
}

impl Walk<'_> {
    fn chain(&mut self, chain: &Chain, depth: usize) -> End {
        for rule in &chain.rules {
            self.steps += 1;
            if depth > DEEPEST || self.steps > MOST_STEPS {
                self.doubts.push((End::Dropped("", String::new(), None), "too many rules".to_owned()));
                return End::Over;
            }
            let fits = rule.fits(self.packet);
            if fits == Answer::No {
                continue;
            }
            let end = match &rule.action {
                Action::Accept => End::Accepted,
                Action::Drop => End::Dropped("a rule drops", rule.text.clone(), rule.removal.clone()),
                Action::Reject => End::Dropped("a rule rejects", rule.text.clone(), rule.removal.clone()),
                Action::Redirect => End::Taken(rule.text.clone(), rule.removal.clone()),
                Action::Jump(name) => self.jump(chain, name, depth),
                Action::Goto(name) if fits == Answer::Yes => return self.jump(chain, name, depth),
                Action::Goto(name) => self.jump(chain, name, depth),
                Action::Return if fits == Answer::Yes => return End::Over,
                Action::Nothing => End::Over,
                // What stands behind it may not be reached, or it may do anything itself.
                Action::Return | Action::Foreign => {
                    let drop = End::Dropped("", String::new(), None);
                    self.doubts.extend([drop, End::Accepted].map(|end| (end, rule.text.clone())));
                    End::Over
                }
            };
            match (fits, end) {
                (_, End::Over) => {}
                (Answer::Yes, end) => return end,
                (_, end) => self.doubts.push((end, rule.text.clone())),
            }
        }
        End::Over
    }

    fn jump(&mut self, from: &Chain, name: &str, depth: usize) -> End {
        let is_it =
            |chain: &&Chain| chain.name == name && chain.family == from.family && chain.table == from.table;
        match self.rules.chains.iter().find(is_it) {
            Some(chain) => self.chain(chain, depth + 1),
            None => End::Over,
        }
    }
}
