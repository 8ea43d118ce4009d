//! What is known of one server's nonces. Pure: time is an argument.
//!
//! A server may take a nonce any number of times, until it gives another, or just once. Its challenges look the same. So
//! each nonce is first sent by one request, the newest one first; when there is none left that was not sent yet, the last
//! one is sent again. Who takes a nonce and offers it once more is a server of the first kind, of which only the last
//! nonce counts.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::Nonce;

/// Of a server that gives each nonce once: more requests than are in flight to it most often.
const MAX_UNUSED: usize = 128;

/// The same in bytes.
const MAX_UNUSED_BYTES: usize = 16 * 1024;

/// One that nobody needed for so long is not sent any more: nonces that end by time live for some minutes, if that, and
/// the last one is the better guess.
const MAX_UNUSED_AGE: Duration = Duration::from_secs(60);

/// A nonce for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) nonce: Nonce,
    /// When it was learned.
    pub(crate) learned: Instant,
}

/// How a nonce is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// To whoever comes next.
    ToAll,
    /// To the request that was answered, which sends it at once.
    ToOne,
    /// After it was taken: whoever does that takes it again.
    Again,
}

/// A server's nonces, for one key and one role.
pub(super) struct ServerNonces {
    last: Nonce,
    learned: Instant,
    /// The last one was sent, or is about to be.
    sent: bool,
    /// Those before it that were not, the newest at the end.
    unused: VecDeque<Taken>,
    /// The server takes one again.
    reusable: bool,
}

impl ServerNonces {
    pub(super) fn new(nonce: Nonce, now: Instant, offer: Offer) -> Self {
        Self {
            last: nonce,
            learned: now,
            sent: offer != Offer::ToAll,
            unused: VecDeque::new(),
            reusable: offer == Offer::Again,
        }
    }

    pub(super) fn last(&self) -> &Nonce {
        &self.last
    }

    /// Whether an offer would change nothing.
    pub(super) fn knows(&self, nonce: &Nonce, offer: Offer) -> bool {
        self.last == *nonce && (self.reusable || offer != Offer::Again)
    }

    /// The last one, if it is what [`take`](Self::take) would give and nothing would change by that.
    pub(super) fn peek(&self) -> Option<Taken> {
        (self.sent && self.unused.is_empty()).then(|| self.take_last())
    }

    /// A nonce for a request that is sent now.
    pub(super) fn take(&mut self, now: Instant) -> Taken {
        if !self.sent {
            self.sent = true;
            return self.take_last();
        }
        match self.unused.pop_back() {
            Some(taken) if now.duration_since(taken.learned) <= MAX_UNUSED_AGE => taken,
            Some(_) => {
                // Those before it are older.
                self.unused.clear();
                self.take_last()
            }
            None => self.take_last(),
        }
    }

    fn take_last(&self) -> Taken {
        Taken {
            nonce: self.last.clone(),
            learned: self.learned,
        }
    }

    /// A nonce that the server offers.
    pub(super) fn learn(&mut self, nonce: Nonce, now: Instant, offer: Offer) {
        if offer == Offer::Again {
            self.reusable = true;
            self.unused.clear();
        }
        if nonce == self.last {
            return;
        }
        let before = self.take_last();
        let was_sent = self.sent;
        (self.last, self.learned) = (nonce, now);
        self.sent = offer != Offer::ToAll;
        self.unused.retain(|known| known.nonce != self.last);
        if !(was_sent || self.reusable) {
            self.unused.push_back(before);
            while self.unused.len() > MAX_UNUSED || self.unused_bytes() > MAX_UNUSED_BYTES {
                self.unused.pop_front();
            }
        }
    }

    fn unused_bytes(&self) -> usize {
        let nonces = self.unused.iter();
        nonces.map(|taken| taken.nonce.as_str().len()).sum()
    }

    /// The server asked for another nonce than this.
    pub(super) fn outdated(&mut self, taken: &Taken) {
        // It may be one that takes each nonce once.
        self.reusable = false;
        // None that is older is any better.
        self.unused.retain(|known| known.learned >= taken.learned);
    }

    /// Whether a nonce was learned since then.
    pub(super) fn learned_since(&self, then: Instant) -> bool {
        self.learned > then
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce(text: &str) -> Nonce {
        Nonce(text.into())
    }

    /// Offered to nobody in particular, one a second, the first one at the time that is given back.
    fn offered(nonces: &[&str]) -> (ServerNonces, Instant) {
        let start = Instant::now();
        let mut server = ServerNonces::new(nonce(nonces[0]), start, Offer::ToAll);
        offer(&mut server, start, &nonces[1..]);
        (server, start)
    }

    fn offer(server: &mut ServerNonces, now: Instant, nonces: &[&str]) {
        for (n, text) in (1..).zip(nonces) {
            server.learn(nonce(text), now + Duration::from_secs(n), Offer::ToAll);
        }
    }

    /// What so many requests get.
    fn take(server: &mut ServerNonces, now: Instant, count: usize) -> Vec<String> {
        let taken = (0..count).map(|_| {
            let peeked = server.peek();
            let taken = server.take(now);
            assert!(peeked.is_none_or(|peeked| peeked == taken));
            taken.nonce.as_str().to_owned()
        });
        taken.collect()
    }

    #[test]
    fn each_is_sent_once_before_one_is_sent_again() {
        let (mut server, start) = offered(&["1", "2", "3", "3", "2"]);
        // The newest first; what is offered once more is the newest then.
        assert_eq!(take(&mut server, start, 5), ["2", "3", "1", "2", "2"]);
    }

    #[test]
    fn who_offers_one_again_gets_the_last_one() {
        let (mut server, start) = offered(&["1", "2", "3"]);
        server.learn(nonce("3"), start, Offer::Again);
        assert_eq!(take(&mut server, start, 2), ["3", "3"]);
        offer(&mut server, start, &["4", "5"]);
        assert_eq!(take(&mut server, start, 2), ["5", "5"]);
        // Until it asks for another one.
        let sent = server.take(start);
        server.outdated(&sent);
        offer(&mut server, start, &["6", "7"]);
        assert_eq!(take(&mut server, start, 2), ["7", "6"]);
    }

    #[test]
    fn when_one_is_outdated_so_are_those_before_it() {
        let (mut server, start) = offered(&["1", "2", "3"]);
        let sent = server.take(start);
        assert_eq!(sent.nonce, nonce("3"));
        offer(&mut server, start + Duration::from_secs(10), &["4", "5"]);
        server.outdated(&sent);
        assert_eq!(take(&mut server, start, 3), ["5", "4", "5"]);
    }

    #[test]
    fn one_that_is_sent_at_once_is_kept_for_nobody_but_as_the_last() {
        let (mut server, start) = offered(&["1"]);
        server.learn(nonce("2"), start, Offer::ToOne);
        assert_eq!(take(&mut server, start, 2), ["1", "2"]);
    }

    #[test]
    fn what_nobody_needed_for_a_minute_is_not_sent_any_more() {
        let (mut server, start) = offered(&["1", "2", "3", "4"]);
        // The first two were learned in its first second.
        let later = start + Duration::from_millis(61_500);
        assert_eq!(take(&mut server, later, 3), ["4", "3", "4"]);
        assert!(server.unused.is_empty());
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let texts: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let (mut server, start) = offered(&texts);
        assert_eq!(server.unused.len(), MAX_UNUSED);
        assert_eq!(take(&mut server, start, 1), ["999"]);

        let texts: Vec<String> = (0..1_000).map(|n| format!("{n:0>1024}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert_eq!(offered(&texts).0.unused_bytes(), MAX_UNUSED_BYTES);
    }
}
