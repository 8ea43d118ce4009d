//! All interleavings of a few threads, each step of which is a lock of the cell or a piece of news.

use std::time::{Duration, SystemTime};

use loom::{
    sync::{Condvar, Mutex},
    thread,
};
use tokio::time::Instant;

use super::*;
use crate::{Audience, DpopKey};

#[derive(Clone)]
struct World {
    cell: Cell<()>,
    now: Now,
    old: AccessToken,
    new: AccessToken,
    /// Rung after each piece of news: whoever waits for one does not have to spin.
    bell: Arc<(Mutex<()>, Condvar)>,
}

/// A cell that holds `old`.
fn model(test: impl Fn(World) + Send + Sync + 'static) {
    let key = DpopKey::generate().unwrap();
    let audience = Audience::origins(["https://api.example.com"]).unwrap();
    let token = |text| AccessToken::new(text, &key, audience.clone()).unwrap();
    let (old, new) = (token("old"), token("new"));
    loom::model(move || {
        let now = Now {
            steady: Instant::now(),
            wall: SystemTime::UNIX_EPOCH,
        };
        let (old, new) = (old.clone(), new.clone());
        let world = World {
            cell: Cell::default(),
            now,
            old,
            new,
            bell: Arc::new((Mutex::new(()), Condvar::new())),
        };
        let Plan::Wait(mut wait) = world.cell.plan(&Ask::default(), now, Some(())) else {
            panic!("nothing to serve yet")
        };
        world.land(wait.fetch.take().unwrap(), &world.old);
        test(world);
    });
}

impl World {
    fn land(&self, landing: Landing<()>, token: &AccessToken) {
        let fetched = Fetched {
            token: token.clone(),
            life: Duration::from_secs(300),
            asked: None,
        };
        landing.land(Ok(fetched), self.now, self.now, 0.5);
        self.ring();
    }

    fn lose(&self, landing: Landing<()>) {
        drop(landing);
        self.ring();
    }

    fn ring(&self) {
        let _quiet = self.bell.0.lock().unwrap();
        self.bell.1.notify_all();
    }

    /// The end of a fetch, and its token if it brought one.
    fn heard(&self, news: &watch::Receiver<News>) -> Option<AccessToken> {
        let mut quiet = self.bell.0.lock().unwrap();
        loop {
            match &*news.borrow() {
                News::Landed(Ok(token)) => return Some(token.clone()),
                News::Landed(Err(_)) | News::Lost | News::Forgotten => return None,
                News::Flying | News::Slow => {}
            }
            quiet = self.bell.1.wait(quiet).unwrap();
        }
    }

    /// As a caller whose request came back with `but` refused: the token to send instead, and how many
    /// fetches that started. Every other fetch that it starts is lost.
    fn renew(&self, but: &AccessToken, mut lose: bool) -> (AccessToken, usize) {
        self.cell.refuse(but, self.now, 0.5);
        let ask = Ask {
            but: Some(but.clone()),
            since: None,
        };
        let mut fetches = 0;
        for _ in 0..3 {
            let mut wait = match self.cell.plan(&ask, self.now, Some(())) {
                Plan::Serve(token, _) => return (token, fetches),
                Plan::Fail(error) => panic!("{error}"),
                Plan::Wait(wait) => wait,
            };
            let fetch = wait.fetch.take().map(|landing| {
                fetches += 1;
                let world = self.clone();
                let lost = std::mem::take(&mut lose);
                thread::spawn(move || match lost {
                    true => world.lose(landing),
                    false => world.land(landing, &world.new),
                })
            });
            let answer = self.heard(&wait.news);
            if let Some(fetch) = fetch {
                fetch.join().unwrap();
            }
            if let Some(token) = answer {
                return (token, fetches);
            }
        }
        panic!("lost more often than it was");
    }
}

#[test]
fn one_refusal_that_two_saw_costs_one_fetch() {
    model(|world| {
        let other = {
            let world = world.clone();
            thread::spawn(move || world.renew(&world.old, false))
        };
        let (token, fetches) = world.renew(&world.old, false);
        let (others, more) = other.join().unwrap();
        assert!(token.is(&world.new) && others.is(&world.new));
        assert_eq!(fetches + more, 1);
    });
}

#[test]
fn a_lost_fetch_leaves_nobody_waiting() {
    model(|world| {
        let other = {
            let world = world.clone();
            thread::spawn(move || world.renew(&world.old, false))
        };
        let (token, fetches) = world.renew(&world.old, true);
        let (others, more) = other.join().unwrap();
        assert!(token.is(&world.new) && others.is(&world.new));
        assert!((1..=2).contains(&(fetches + more)));
        assert!(!world.cell.is_busy());
    });
}

#[test]
fn a_late_refusal_of_the_old_token_leaves_the_new_one() {
    model(|world| {
        let late = {
            let world = world.clone();
            thread::spawn(move || world.cell.refuse(&world.old, world.now, 0.5))
        };
        let (token, _) = world.renew(&world.old, false);
        late.join().unwrap();
        assert!(token.is(&world.new));
        let step = world.cell.look(&Ask::default(), world.now);
        assert!(matches!(step, Step::Serve(token) if token.is(&world.new)));
    });
}

#[test]
fn what_is_forgotten_in_flight_comes_back_to_nobody() {
    model(|world| {
        world.cell.forget();
        let Plan::Wait(mut wait) = world.cell.plan(&Ask::default(), world.now, Some(())) else {
            panic!("forgotten")
        };
        let landing = wait.fetch.take().unwrap();
        let flying = {
            let world = world.clone();
            thread::spawn(move || world.land(landing, &world.new))
        };
        world.cell.forget();
        world.ring();
        // Heard as landed before it was forgotten, or as lost: never nothing.
        world.heard(&wait.news);
        flying.join().unwrap();
        assert!(!world.cell.is_busy());
        let step = world.cell.look(&Ask::default(), world.now);
        assert!(matches!(step, Step::Wait { fetch: true, .. }), "{step:?}");
    });
}
