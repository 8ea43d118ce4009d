//! Device codes, and what their users say (RFC 8628).

use std::time::Duration;

use tokio::time::Instant;

use super::{
    expiring::Expiring,
    shared::{Fault, Random},
};

/// RFC 8628, section 3.2: what a client takes if nothing is said.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// Time enough for a user to find another device.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);

/// RFC 8628, section 3.5: what each `slow_down` adds.
const SLOWER: Duration = Duration::from_secs(5);

/// How long a code is remembered after its end, so that it is answered with `expired_token`. What is kept for
/// it is bounded by what is asked for within that time.
const MEMORY: Duration = Duration::from_secs(3600);

/// RFC 8628, section 6.1: letters that make no words.
const LETTERS: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ";

pub(super) struct Devices {
    /// By device code.
    waiting: Expiring<String, Waiting>,
    pub(super) interval: Duration,
    pub(super) lifetime: Duration,
    /// Whether users approve whatever is asked.
    pub(super) approve: bool,
}

/// What a device asks for.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) client_id: String,
    pub(super) scope: Option<String>,
    pub(super) resources: Vec<String>,
}

struct Waiting {
    device: Device,
    user_code: String,
    /// By the server's clock, since 1970.
    end: Duration,
    verdict: Verdict,
    interval: Duration,
    /// When it asked last.
    polled: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pending,
    Approved,
    Denied,
}

impl Devices {
    pub(super) fn new() -> Self {
        Self {
            waiting: Expiring::default(),
            interval: DEFAULT_INTERVAL,
            lifetime: DEFAULT_LIFETIME,
            approve: false,
        }
    }

    /// The device code and the user code.
    pub(super) fn issue(
        &mut self,
        device: Device,
        now: Duration,
        random: &Random,
    ) -> (String, String) {
        let (code, user_code) = (random.text(), user_code(random));
        let end = now.saturating_add(self.lifetime);
        let waiting = Waiting {
            device,
            user_code: user_code.clone(),
            end,
            verdict: Verdict::Pending,
            interval: self.interval,
            polled: None,
        };
        let forget = end.saturating_add(MEMORY);
        self.waiting.insert(code.clone(), waiting, forget, now);
        (code, user_code)
    }

    /// What a user says. False if there is no such code.
    pub(super) fn judge(&mut self, user_code: &str, verdict: Verdict) -> bool {
        let typed = letters(user_code);
        let waiting = self
            .waiting
            .values_mut()
            .find(|waiting| letters(&waiting.user_code) == typed);
        let found = waiting.is_some();
        if let Some(waiting) = waiting {
            waiting.verdict = verdict;
        }
        found
    }

    /// What the client's user approved, or the error that answers it.
    pub(super) fn poll(
        &mut self,
        code: &str,
        client_id: &str,
        now: Duration,
    ) -> Result<Device, Fault> {
        let fault = |code, reason| Err(Fault { code, reason });
        let Some(waiting) = self.waiting.get_mut(code) else {
            return fault("invalid_grant", "the device code is unknown, or was used");
        };
        if waiting.device.client_id != client_id {
            return fault("invalid_grant", "the device code is another client's");
        }
        if waiting.end <= now {
            return fault("expired_token", "the device code expired");
        }
        // By Tokio's clock, which the client waits by.
        let instant = Instant::now();
        let last = waiting.polled.replace(instant);
        if last.is_some_and(|last| instant.duration_since(last) < waiting.interval) {
            waiting.interval = waiting.interval.saturating_add(SLOWER);
            return fault("slow_down", "the client polls sooner than the interval");
        }
        if self.approve && waiting.verdict == Verdict::Pending {
            waiting.verdict = Verdict::Approved;
        }
        match waiting.verdict {
            Verdict::Pending => fault("authorization_pending", "the user has not answered yet"),
            Verdict::Denied => fault("access_denied", "the user denies it"),
            Verdict::Approved => Ok(waiting.device.clone()),
        }
    }

    pub(super) fn spend(&mut self, code: &str) {
        self.waiting.remove(code);
    }
}

/// Eight letters with a dash, of which 34 bits are random.
fn user_code(random: &Random) -> String {
    let text = random.text();
    let mut letters = text
        .bytes()
        .map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    let first: String = letters.by_ref().take(4).collect();
    let second: String = letters.take(4).collect();
    format!("{first}-{second}")
}

/// What counts of a code that a user typed.
fn letters(user_code: &str) -> String {
    let letters = user_code.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_uppercase()).collect()
}
