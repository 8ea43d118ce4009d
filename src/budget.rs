//! How often one request is sent.

/// What may still be sent again of one request. The layers share it, each by handing on what is left: down
/// with the request's [`AccessToken`](crate::AccessToken), up with the response.
///
/// The outermost of our layers begins with a full one in each `call`, so whatever an outer retry sends
/// again begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// One for a server whose nonce was unknown or outdated, one more for a server that gives each nonce once:
    /// requests in parallel overtake each other there. Who asks a third time does not mean us to get through.
    pub(crate) nonces: u8,
    /// One for a refused token or for a clock that was wrong, whichever comes first.
    pub(crate) corrections: u8,
}

impl Budget {
    /// Four sends in all: the first, and what this allows.
    pub(crate) const FULL: Self = Self {
        nonces: 2,
        corrections: 1,
    };

    /// How often the request was sent again.
    pub(crate) fn spent(self) -> u8 {
        Self::FULL.nonces + Self::FULL.corrections - self.nonces - self.corrections
    }
}

/// In the extensions of a response, if anything was spent on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left(pub(crate) Budget);
