//! Which client may do what.
//!
//! Owns the tokens, the logins of browsers, and the count of wrong tokens. Knows no route.
//!
//! - A client of the unix socket is an administrator: the file's mode says who may connect.
//! - A client of TCP on loopback is one, too, as long as no token is set. Without a token, no other
//!   address is served, whatever the configuration says.
//! - The token of `[probe]` is for other nodes. It neither logs in nor makes loopback ask.
//! - Any other client shows a token, or the cookie of a login that was made with one.
//!
//! A wrong token is answered [`WRONG`] after it came, whatever is wrong with it. Every token is
//! compared, over the same number of bytes. A client that shows many wrong ones waits until it may
//! try again. Its right ones wait, too.
//!
//! A login is a random number in a cookie. There are at most [`MOST_LOGINS`], and the oldest makes
//! room. A login ends after [`LOGIN`], and when its token is taken out of the configuration.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Role, Secret, Token},
    mapping::ClientKey,
    policy::{ClientLimiter, Crowded, Rate},
};

/// When a wrong token is answered.
const WRONG: Duration = Duration::from_millis(200);
/// Wrong tokens that a client may show at once, and in a minute.
const TRIES: NonZeroU32 = NonZeroU32::new(30).expect("not zero");
/// Clients whose wrong tokens are counted. More share the counts of their networks.
const COUNTED: usize = 1024;
/// Bytes over which tokens are compared: the longest that the configuration takes.
const WIDTH: usize = 4096;
/// How long a login holds.
pub(super) const LOGIN: Duration = Duration::from_secs(12 * 3600);
const MOST_LOGINS: usize = 64;
/// Random bytes of a login.
const LOGIN_BYTES: usize = 32;

/// What a client shows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown<'a> {
    Nothing,
    Token(&'a [u8]),
    Cookie(&'a str),
}

/// Why a client may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It shows nothing, or the cookie of a login that has ended.
    NothingShown,
    /// No such token.
    WrongToken,
    /// Too many wrong tokens came from its address.
    TooMany,
    /// The token is for other nodes, and not for browsers.
    OfProbe,
    /// It came from elsewhere, and there is no token that it could show.
    NoTokens,
}

/// The tokens and what came of them.
#[derive(Debug)]
pub(super) struct Auth {
    tokens: ArcSwap<Tokens>,
    logins: Mutex<Vec<Login>>,
    tries: ClientLimiter,
    /// Cancelled when the tokens change.
    revoked: ArcSwap<CancellationToken>,
}

#[derive(Debug)]
struct Login {
    id: String,
    secret: Secret,
    until: Instant,
}

impl Auth {
    pub(super) fn new(tokens: &[Token]) -> Self {
        let rate = Rate { count: TRIES, per: Duration::from_secs(60), burst: TRIES };
        Self {
            tokens: ArcSwap::from_pointee(Tokens::of(tokens)),
            logins: Mutex::default(),
            tries: ClientLimiter::new(rate, COUNTED, Crowded::Replace),
            revoked: ArcSwap::default(),
        }
    }

    /// Takes the tokens of another configuration. Logins of tokens that are gone end.
    pub(super) fn retune(&self, tokens: &[Token]) {
        let tokens = Tokens::of(tokens);
        if self.tokens.load().are(&tokens) {
            return;
        }
        self.logins().retain(|login| tokens.role_of_login(login).is_some());
        self.tokens.store(Arc::new(tokens));
        self.revoked.swap(Arc::default()).cancel();
    }

    /// Cancelled when the tokens of now do not count any more. What a token has begun ends then.
    pub(super) fn revoked(&self) -> CancellationToken {
        CancellationToken::clone(&self.revoked.load())
    }

    /// Whether a client of TCP has to show something.
    pub(super) fn asks(&self) -> bool {
        self.tokens.load().0.iter().any(|(token, _)| token.role != Role::Probe)
    }

    /// The role of a client of TCP at this address.
    ///
    /// # Errors
    /// [`Denied`]; a wrong token takes a constant time.
    pub(super) async fn role(&self, client: IpAddr, shown: Shown<'_>) -> Result<Role, Denied> {
        if !self.asks() && client.to_canonical().is_loopback() {
            return Ok(Role::Admin);
        }
        if self.tokens.load().0.is_empty() {
            return Err(Denied::NoTokens);
        }
        match shown {
            Shown::Nothing => Err(Denied::NothingShown),
            Shown::Cookie(id) => self.role_of_cookie(id).ok_or(Denied::NothingShown),
            Shown::Token(token) => self.check(client, token).await.map(|token| token.role),
        }
    }

    /// Logs a client in that shows a token: its role, and the number for the cookie.
    ///
    /// # Errors
    /// As for [`Auth::role`]; and no number where the system has no random bytes.
    pub(super) async fn log_in(
        &self,
        client: IpAddr,
        token: &[u8],
    ) -> Result<(Role, Option<String>), Denied> {
        let Token { role, secret } = self.check(client, token).await?;
        if role == Role::Probe {
            return Err(Denied::OfProbe);
        }
        let Some(id) = random() else { return Ok((role, None)) };
        let now = Instant::now();
        let mut logins = self.logins();
        logins.retain(|login| login.until > now);
        if logins.len() == MOST_LOGINS {
            logins.remove(0);
        }
        logins.push(Login { id: id.clone(), secret, until: now + LOGIN });
        Ok((role, Some(id)))
    }

    /// Ends a login.
    pub(super) fn log_out(&self, id: &str) {
        self.logins().retain(|login| !same(&login.id, id));
    }

    fn role_of_cookie(&self, id: &str) -> Option<Role> {
        let (now, tokens) = (Instant::now(), self.tokens.load());
        let logins = self.logins();
        let login = logins.iter().find(|login| same(&login.id, id) && login.until > now)?;
        tokens.role_of_login(login)
    }

    /// The token that a client shows.
    async fn check(&self, client: IpAddr, shown: &[u8]) -> Result<Token, Denied> {
        let (came, client) = (Instant::now(), ClientKey::of(client));
        if !self.tries.take(client, came) {
            return Err(Denied::TooMany);
        }
        let found = self.tokens.load().find(shown);
        match found {
            Some(token) => {
                self.tries.give_back(client);
                Ok(token)
            }
            None => {
                sleep_until(came + WRONG).await;
                Err(Denied::WrongToken)
            }
        }
    }

    fn logins(&self) -> MutexGuard<'_, Vec<Login>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tokens, all of one width.
#[derive(Debug)]
struct Tokens(Vec<(Token, Box<Padded>)>);

/// A token, its length, and zeros.
struct Padded {
    bytes: [u8; WIDTH],
    length: u64,
}

impl std::fmt::Debug for Padded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl Padded {
    /// What is longer has its own length, and so equals nothing.
    fn of(token: &[u8]) -> Self {
        let mut bytes = [0; WIDTH];
        let kept = token.len().min(WIDTH);
        bytes[..kept].copy_from_slice(&token[..kept]);
        Self { bytes, length: token.len() as u64 }
    }

    fn is(&self, other: &Self) -> Choice {
        self.bytes.ct_eq(&other.bytes) & self.length.ct_eq(&other.length)
    }
}

impl Tokens {
    fn of(tokens: &[Token]) -> Self {
        // An empty one would be shown by a client that has none.
        let tokens = tokens.iter().filter(|token| !token.secret.as_bytes().is_empty());
        let padded = |token: &Token| (token.clone(), Box::new(Padded::of(token.secret.as_bytes())));
        Self(tokens.map(padded).collect())
    }

    /// Whether these are the same.
    fn are(&self, other: &Self) -> bool {
        self.0.iter().map(|(token, _)| token).eq(other.0.iter().map(|(token, _)| token))
    }

    /// Compares all of them, whichever it is.
    fn find(&self, shown: &[u8]) -> Option<Token> {
        let shown = Padded::of(shown);
        let mut found = u64::MAX;
        for (index, (_, token)) in (0_u64..).zip(&self.0) {
            found.conditional_assign(&index, token.is(&shown));
        }
        let (token, _) = self.0.get(usize::try_from(found).ok()?)?;
        Some(token.clone())
    }

    fn role_of_login(&self, login: &Login) -> Option<Role> {
        self.find(login.secret.as_bytes()).map(|token| token.role)
    }
}

fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// A number that cannot be guessed, as text.
fn random() -> Option<String> {
    let mut bytes = [0; LOGIN_BYTES];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
    (filled == LOGIN_BYTES).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const READ: &str = "a token to read with";
    const ADMIN: &str = "a token to change things";

    fn tokens() -> [Token; 2] {
        [(Role::Read, READ), (Role::Admin, ADMIN)].map(|(role, text)| Token { role, secret: text.into() })
    }

    #[tokio::test(start_paused = true)]
    async fn without_tokens_loopback_alone_may() {
        let auth = Auth::new(&[]);
        assert_eq!(auth.role(LOOPBACK, Shown::Nothing).await, Ok(Role::Admin));
        assert_eq!(auth.role("::ffff:127.0.0.1".parse().unwrap(), Shown::Nothing).await, Ok(Role::Admin));
        assert_eq!(auth.role(STRANGER, Shown::Token(b"")).await, Err(Denied::NoTokens));
    }

    #[tokio::test(start_paused = true)]
    async fn the_token_of_probes_is_for_other_nodes_alone() {
        let probe = Token { role: Role::Probe, secret: "a token of another node".into() };
        let shown = Shown::Token(b"a token of another node");
        let auth = Auth::new(std::slice::from_ref(&probe));
        assert_eq!(auth.role(LOOPBACK, Shown::Nothing).await, Ok(Role::Admin), "as without it");
        assert_eq!(auth.role(STRANGER, Shown::Nothing).await, Err(Denied::NothingShown));
        assert_eq!(auth.role(STRANGER, Shown::Token(b"wrong")).await, Err(Denied::WrongToken));
        assert_eq!(auth.role(STRANGER, shown).await, Ok(Role::Probe));
        assert_eq!(auth.log_in(STRANGER, b"a token of another node").await, Err(Denied::OfProbe));
        auth.retune(&[&tokens()[..], &[probe]].concat());
        assert_eq!(auth.role(LOOPBACK, Shown::Nothing).await, Err(Denied::NothingShown));
        assert_eq!(auth.role(LOOPBACK, shown).await, Ok(Role::Probe));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_token_takes_its_time_and_a_right_one_does_not() {
        let auth = Auth::new(&tokens());
        let longer = format!("{ADMIN}x");
        let padded = format!("{ADMIN}\0");
        let long = "x".repeat(2 * WIDTH);
        for wrong in ["", "x", "a token to", &longer, &padded, &long] {
            let started = Instant::now();
            assert_eq!(auth.role(LOOPBACK, Shown::Token(wrong.as_bytes())).await, Err(Denied::WrongToken));
            assert_eq!(started.elapsed(), WRONG, "{wrong}");
        }
        let started = Instant::now();
        assert_eq!(auth.role(STRANGER, Shown::Token(READ.as_bytes())).await, Ok(Role::Read));
        assert_eq!(auth.role(STRANGER, Shown::Token(ADMIN.as_bytes())).await, Ok(Role::Admin));
        assert_eq!(auth.role(LOOPBACK, Shown::Nothing).await, Err(Denied::NothingShown));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn many_wrong_tokens_of_a_client_shut_that_client_out_for_a_while() {
        let auth = Auth::new(&tokens());
        let tries = (0..TRIES.get()).map(|_| auth.role(STRANGER, Shown::Token(b"wrong")));
        futures_util::future::join_all(tries).await;
        let right = Shown::Token(ADMIN.as_bytes());
        assert_eq!(auth.role(STRANGER, right).await, Err(Denied::TooMany));
        assert_eq!(auth.role(LOOPBACK, right).await, Ok(Role::Admin));
        tokio::time::advance(Duration::from_secs(5)).await;
        for _ in 0..100 {
            assert_eq!(auth.role(STRANGER, right).await, Ok(Role::Admin), "a right one does not count");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_holds_until_its_time_its_end_or_the_end_of_its_token() {
        let auth = Auth::new(&tokens());
        let log_in = async || auth.log_in(STRANGER, READ.as_bytes()).await.unwrap().1.unwrap();
        let [first, second, third] = [log_in().await, log_in().await, log_in().await];
        assert!(first != second && first.len() == 2 * LOGIN_BYTES);
        let role = async |id: &str| auth.role(STRANGER, Shown::Cookie(id)).await;
        assert_eq!(role(&first).await, Ok(Role::Read));
        auth.log_out(&first);
        assert_eq!(role(&first).await, Err(Denied::NothingShown));
        tokio::time::advance(LOGIN).await;
        assert_eq!(role(&second).await, Err(Denied::NothingShown), "and {third} is as old");
        let (fourth, revoked) = (log_in().await, auth.revoked());
        auth.retune(&tokens());
        assert!(!revoked.is_cancelled(), "nothing has changed");
        auth.retune(&tokens()[..1]);
        assert!(revoked.is_cancelled() && !auth.revoked().is_cancelled());
        assert_eq!(role(&fourth).await, Ok(Role::Read));
        auth.retune(&tokens()[1..]);
        assert_eq!(role(&fourth).await, Err(Denied::NothingShown));
        assert!(auth.logins().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_login_makes_room() {
        let auth = Auth::new(&tokens());
        let first = auth.log_in(STRANGER, ADMIN.as_bytes()).await.unwrap().1.unwrap();
        for _ in 0..MOST_LOGINS {
            auth.log_in(STRANGER, ADMIN.as_bytes()).await.unwrap();
        }
        assert_eq!(auth.logins().len(), MOST_LOGINS);
        assert_eq!(auth.role(STRANGER, Shown::Cookie(&first)).await, Err(Denied::NothingShown));
    }
}
