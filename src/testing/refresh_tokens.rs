//! Refresh tokens (RFC 6749, section 6), and what becomes of them when they are used (RFC 9700, section 4.14).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::shared::Random;

/// What a grant allows, and to whom. Its refresh tokens, if there are any, follow one another; they and all
/// its access tokens are good only as long as it is.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) client_id: String,
    /// In whose name: a user, or the client itself.
    pub(super) subject: String,
    pub(super) scope: Option<String>,
    pub(super) resources: Vec<String>,
    /// Of the key that the refresh tokens of a public client are bound to.
    pub(super) thumbprint: String,
    pub(super) over: AtomicBool,
}

impl Family {
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// The refresh tokens of all families. A token is the family's name, a dot and a random text, so those that
/// were used need not be remembered: they are the ones that name a family and are not its current one.
pub(super) struct RefreshTokens {
    /// By name.
    lines: HashMap<String, Line>,
    pub(super) rotate: bool,
    /// How long after its first use a token may be used again.
    pub(super) grace: Duration,
}

/// A family's tokens.
struct Line {
    family: Arc<Family>,
    current: String,
    previous: Option<Previous>,
}

/// The token that the current one came from.
struct Previous {
    token: String,
    /// When it was used for the first time, since 1970.
    used: Duration,
}

impl Line {
    fn takes(&self, token: &str, now: Duration, grace: Duration) -> bool {
        let in_grace = self.previous.as_ref().is_some_and(|previous| {
            token == previous.token && now.saturating_sub(previous.used) < grace
        });
        token == self.current || in_grace
    }
}

impl RefreshTokens {
    pub(super) fn new() -> Self {
        Self {
            lines: HashMap::new(),
            rotate: true,
            grace: Duration::ZERO,
        }
    }

    /// The first token of a new family.
    pub(super) fn issue(&mut self, family: Arc<Family>, random: &Random) -> String {
        let name = random.text();
        let current = token(&name, random);
        let line = Line {
            family,
            current: current.clone(),
            previous: None,
        };
        self.lines.insert(name, line);
        current
    }

    /// What the token allows the client, or why nothing. `key` is the proof's, if the client must use the one
    /// that the token is bound to. A token that was used before is the last that its family sees.
    pub(super) fn read(
        &mut self,
        token: &str,
        client_id: &str,
        key: Option<&str>,
        now: Duration,
    ) -> Result<Arc<Family>, &'static str> {
        let unknown = "the refresh token is unknown, or was revoked";
        let name = name(token).ok_or(unknown)?;
        let line = self.lines.get(name).ok_or(unknown)?;
        if line.family.is_over() {
            self.lines.remove(name);
            return Err(unknown);
        }
        if line.family.client_id != client_id {
            return Err("the refresh token is another client's");
        }
        if key.is_some_and(|key| key != line.family.thumbprint) {
            return Err("the refresh token is bound to another key");
        }
        if !line.takes(token, now, self.grace) {
            line.family.end();
            self.lines.remove(name);
            return Err("the refresh token was used before; all tokens of its grant are revoked");
        }
        Ok(Arc::clone(&line.family))
    }

    /// Uses a token that was read. Returns the one to use from now on, if it is another.
    pub(super) fn spend(&mut self, used: &str, now: Duration, random: &Random) -> Option<String> {
        let name = name(used)?;
        let line = self.lines.get_mut(name)?;
        if used == line.current {
            if !self.rotate {
                return None;
            }
            line.current = token(name, random);
            line.previous = Some(Previous {
                token: used.to_owned(),
                used: now,
            });
        }
        Some(line.current.clone())
    }

    /// The grant of a token that is good, without any of what its use brings about.
    pub(super) fn find(&self, token: &str, now: Duration) -> Option<&Family> {
        let line = self.lines.get(name(token)?)?;
        let good = !line.family.is_over() && line.takes(token, now, self.grace);
        good.then_some(&*line.family)
    }

    /// The grant that a token is of, be it good or used.
    pub(super) fn family(&self, token: &str) -> Option<&Family> {
        let line = self.lines.get(name(token)?)?;
        Some(&line.family)
    }

    pub(super) fn revoke_all(&mut self) {
        for (_, line) in self.lines.drain() {
            line.family.end();
        }
    }
}

fn token(name: &str, random: &Random) -> String {
    format!("{name}.{}", random.text())
}

/// Of the family that a token is of.
fn name(token: &str) -> Option<&str> {
    token.split_once('.').map(|(name, _)| name)
}
