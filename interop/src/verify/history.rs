//! What the record says as a whole: no proof twice, no nonce that was not offered.

use std::collections::HashSet;

use super::line::{Claims, target};
use crate::record::Sent;

/// What was seen so far. It grows with the record, by some hundred bytes for a line.
#[derive(Default)]
pub(super) struct History {
    jtis: HashSet<Box<str>>,
    places: Vec<Place>,
}

/// An origin, asked with a key, with a token or without: a client keeps nonces for each.
struct Place {
    origin: String,
    /// The proof's header, as it is written: it has the key, and nothing that changes.
    header: Box<str>,
    with_token: bool,
    offered: HashSet<Box<str>>,
}

impl History {
    /// Tells what a line breaks that was true so far, then learns it.
    pub(super) fn check(
        &mut self,
        sent: &Sent,
        claims: Option<&Claims>,
        mut found: impl FnMut(&'static str, String),
    ) {
        let place = self.place(sent);
        if let Some(claims) = claims {
            self.check_claims(claims, place, &mut found);
        }
        if let Some(offered) = &sent.offered {
            self.places[place].offered.insert(offered.as_str().into());
        }
    }

    fn check_claims(
        &mut self,
        claims: &Claims,
        place: usize,
        found: &mut impl FnMut(&'static str, String),
    ) {
        if claims.jti.is_empty() {
            found("jti", "an empty one".to_owned());
        } else if !self.jtis.insert(claims.jti.as_str().into()) {
            found("jti", format!("{} was sent before", claims.jti));
        }
        let Some(nonce) = &claims.nonce else { return };
        let here = &self.places[place];
        if here.offered.contains(nonce.as_str()) {
            return;
        }
        let elsewhere = |other: &&Place| other.offered.contains(nonce.as_str());
        let where_else = match self.places.iter().find(elsewhere) {
            Some(other) if other.origin == here.origin && other.header != here.header => {
                "offered to another key alone"
            }
            Some(other) if other.origin == here.origin => "offered in the other role alone",
            Some(_) => "offered by another origin alone",
            None => "offered by nobody before",
        };
        found("nonce", format!("{nonce} was {where_else}"));
    }

    /// There are few origins and keys in a record.
    fn place(&mut self, sent: &Sent) -> usize {
        let origin = target(&sent.url)
            .and_then(|url| url::Url::parse(&url).ok())
            .map(|url| url.origin().ascii_serialization())
            .unwrap_or_default();
        let with_token = sent.token.is_some();
        let header = sent.proof.split('.').next().unwrap_or_default();
        let known = |place: &Place| {
            place.with_token == with_token && *place.header == *header && place.origin == origin
        };
        // The last one is the likeliest.
        self.places.iter().rposition(known).unwrap_or_else(|| {
            self.places.push(Place {
                origin,
                header: header.into(),
                with_token,
                offered: HashSet::new(),
            });
            self.places.len() - 1
        })
    }
}
