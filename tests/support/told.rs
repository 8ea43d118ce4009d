//! What the layers tell a log.

use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// The events of this crate: level, and all fields as text; and its spans. There are none without the feature
/// `tracing`.
#[derive(Clone, Default)]
pub(crate) struct Told {
    events: Arc<Mutex<Vec<(Level, String)>>>,
    spans: Arc<Mutex<Vec<Span>>>,
    entered: Arc<Mutex<Vec<u64>>>,
}

/// A span: level, name, and all fields as text, with those that came later.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) level: Level,
    pub(crate) name: &'static str,
    pub(crate) fields: String,
    /// The name of the span that it stands in, if it says so.
    pub(crate) parent: Option<&'static str>,
    /// The events that were told within it.
    pub(crate) events: usize,
}

impl Told {
    /// From now on, what happens in this thread.
    pub(crate) fn listen(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(self.clone())
    }

    /// How many events at `level` say `what`.
    pub(crate) fn count(&self, level: Level, what: &str) -> usize {
        let told = self.events.lock().unwrap();
        let hits = told
            .iter()
            .filter(|(l, text)| *l == level && text.contains(what));
        hits.count()
    }

    pub(crate) fn len(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    pub(crate) fn all(&self) -> String {
        let (events, spans) = (self.events.lock().unwrap(), self.spans.lock().unwrap());
        format!("{events:#?} {spans:#?}")
    }

    /// The spans of this name, in their order.
    pub(crate) fn spans(&self, name: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        spans
            .iter()
            .filter(|span| span.name == name)
            .cloned()
            .collect()
    }

    fn here(&self) -> Option<usize> {
        let entered = self.entered.lock().unwrap();
        entered.last().map(|id| *id as usize - 1)
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Told {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tower_dpop"
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let here = self.here().filter(|_| attributes.is_contextual());
        let mut spans = self.spans.lock().unwrap();
        let mut fields = String::new();
        attributes.record(&mut Fields(&mut fields));
        let parent = here.map(|here| spans[here].name);
        spans.push(Span {
            level: *attributes.metadata().level(),
            name: attributes.metadata().name(),
            fields,
            parent,
            events: 0,
        });
        span::Id::from_u64(spans.len() as u64)
    }

    fn record(&self, id: &span::Id, values: &span::Record<'_>) {
        let mut spans = self.spans.lock().unwrap();
        values.record(&mut Fields(&mut spans[id.into_u64() as usize - 1].fields));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut Fields(&mut text));
        if let Some(here) = self.here() {
            self.spans.lock().unwrap()[here].events += 1;
        }
        let level = *event.metadata().level();
        self.events.lock().unwrap().push((level, text));
    }

    fn enter(&self, id: &span::Id) {
        self.entered.lock().unwrap().push(id.into_u64());
    }

    fn exit(&self, id: &span::Id) {
        assert_eq!(self.entered.lock().unwrap().pop(), Some(id.into_u64()));
    }
}
