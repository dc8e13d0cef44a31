//! Which revision answers a request, and which gets a copy of it. Pure.
//!
//! The order: the kill switch, the header `x-inferno-revision`, the split by the sticky key. A revision other than the
//! stable one gets nothing while none of its pods is ready: a canary must not cost a request that the stable revision
//! could have answered.

use crds::split::{self, BUCKETS};

use super::ask::Ask;
use super::view::{KillSwitch, ModelView, RevisionView, StickyKey};

/// Buckets of one percent.
const PERCENT: u16 = BUCKETS / 100;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// The revision that answers.
    pub revision: String,
    /// Whether that is another than the stable one.
    pub is_canary: bool,
    /// The revision that gets a copy, whose answer nobody sees.
    pub mirror: Option<String>,
}

/// Decides; from the view and the request alone, so that all gateways decide alike.
///
/// A request to a model whose kill switch is on `Model` must have been refused before (see `outlook`).
pub fn route(model: &ModelView, ask: &Ask) -> Routed {
    let stable = model.traffic.table.stable.as_str();
    let is_split = model.kill_switch == KillSwitch::Off;
    let chosen = if is_split { chosen(model, ask) } else { stable };
    let has_ready = |name: &str| model.revision(name).is_some_and(RevisionView::is_ready);
    let revision = if has_ready(chosen) { chosen } else { stable };
    let mirror = if is_split { mirror(model, ask).filter(|name| *name != revision) } else { None };
    Routed {
        revision: revision.to_owned(),
        is_canary: revision != stable,
        mirror: mirror.filter(|name| has_ready(name)).map(str::to_owned),
    }
}

fn chosen<'model>(model: &'model ModelView, ask: &Ask) -> &'model str {
    let traffic = &model.traffic;
    let asked_for = ask.revision.as_deref().filter(|_| traffic.may_override);
    let named = asked_for.and_then(|name| model.revision(name)).map(|revision| revision.name.as_str());
    named.unwrap_or_else(|| split::arm(&sticky_key(traffic.sticky_key, ask), &traffic.table))
}

/// Copies follow conversations, not single requests: the copies of a conversation's turns find its earlier ones in the
/// canary's cache, as they would if it really served them. The salt differs from the split's, so that the conversations
/// that are copied are not those that are split off first.
fn mirror<'model>(model: &'model ModelView, ask: &Ask) -> Option<&'model str> {
    let mirror = model.traffic.mirror.as_ref().filter(|_| ask.is_generation)?;
    let salt = format!("{}/mirror", model.traffic.table.salt);
    let bucket = split::bucket(&salt, &sticky_key(StickyKey::Conversation, ask));
    (bucket < u16::from(mirror.percent) * PERCENT).then_some(mirror.revision.as_str())
}

/// What keeps a client on its revision or with its lot, in the order of the list from the one asked for on.
pub(super) fn sticky_key(from: StickyKey, ask: &Ask) -> Vec<u8> {
    let conversation = || {
        let session = ask.session.as_ref().map(|session| session.clone().into_bytes());
        session.or_else(|| ask.deep.map(|deep| deep.to_le_bytes().to_vec()))
    };
    let user = || ask.user.as_ref().map(|user| user.clone().into_bytes());
    let api_key = || ask.api_key.map(|key| key.to_le_bytes().to_vec());
    let request = || ask.request_id.as_ref().map(|id| id.clone().into_bytes());
    let key = match from {
        StickyKey::Conversation => conversation().or_else(user).or_else(api_key).or_else(request),
        StickyKey::User => user().or_else(api_key).or_else(request),
        StickyKey::APIKey => api_key().or_else(request),
        StickyKey::Request => request(),
    };
    key.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crds::split::{Arm, Table};
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::view::{EndpointView, Mirror, Traffic};

    fn revision(name: &str, is_ready: bool) -> RevisionView {
        let endpoint = EndpointView {
            address: ([10, 0, 0, 1], 80).into(),
            pod: "p".into(),
            is_ready,
            is_leaving: false,
        };
        RevisionView { name: name.into(), slots: 4, endpoints: vec![endpoint] }
    }

    /// Stable `a` and canary `b`, both ready.
    fn model(weight_basis_points: u16) -> ModelView {
        let others = vec![Arm { revision: "b".into(), weight_basis_points }];
        let table = Table { salt: "uid/b".into(), stable: "a".into(), others };
        ModelView {
            traffic: Traffic { table, may_override: true, ..Traffic::default() },
            revisions: vec![revision("a", true), revision("b", true)],
            ..ModelView::default()
        }
    }

    fn request(number: u32) -> Ask {
        Ask { session: Some(format!("session-{number}")), is_generation: true, ..Ask::default() }
    }

    fn share(model: &ModelView, counts: impl Fn(&Routed) -> bool) -> f64 {
        let hits = (0..100_000).filter(|number| counts(&route(model, &request(*number)))).count();
        hits as f64 / 1_000.0
    }

    #[test]
    fn shares_are_exact_within_half_a_point() {
        for percent in [0_u16, 10, 25, 50, 100] {
            let got = share(&model(percent * 100), |routed| routed.is_canary);
            assert!((got - f64::from(percent)).abs() <= 0.5, "{percent}% gave {got}%");
        }
    }

    #[test]
    fn a_mirror_gets_its_percentage_of_those_who_are_elsewhere() {
        let mut model = model(0);
        for percent in [0_u8, 5, 100] {
            model.traffic.mirror = Some(Mirror { revision: "b".into(), percent });
            let got = share(&model, |routed| routed.mirror.as_deref() == Some("b") && !routed.is_canary);
            assert!((got - f64::from(percent)).abs() <= 0.5, "{percent}% gave {got}%");
        }
        let model = ModelView {
            traffic: Traffic { mirror: model.traffic.mirror.clone(), ..self::model(10_000).traffic },
            ..model
        };
        assert!(share(&model, |routed| routed.mirror.is_some()) < 1e-9, "nobody is copied to where he is");
        let other = Ask { is_generation: false, ..request(1) };
        assert_eq!(route(&ModelView { revisions: model.revisions.clone(), ..model }, &other).mirror, None);
    }

    #[test]
    fn the_split_and_the_mirror_choose_independently() {
        let mut model = model(5_000);
        model.revisions.push(revision("c", true));
        model.traffic.mirror = Some(Mirror { revision: "c".into(), percent: 50 });
        let both = share(&model, |routed| routed.is_canary && routed.mirror.is_some());
        assert!((both - 25.0).abs() <= 0.5, "{both}%");
    }

    #[test]
    fn the_kill_switch_beats_the_header_and_the_split() {
        let mut model = model(10_000);
        model.traffic.mirror = Some(Mirror { revision: "b".into(), percent: 100 });
        model.kill_switch = KillSwitch::Rollout;
        let ask = Ask { revision: Some("b".into()), ..request(0) };
        assert_eq!(route(&model, &ask), Routed { revision: "a".into(), is_canary: false, mirror: None });
    }

    #[test]
    fn the_header_names_a_revision_where_that_is_allowed() {
        let mut model = model(0);
        let ask = Ask { revision: Some("b".into()), ..request(0) };
        assert_eq!(route(&model, &ask).revision, "b");
        assert_eq!(route(&model, &Ask { revision: Some("z".into()), ..request(0) }).revision, "a");
        model.traffic.may_override = false;
        assert_eq!(route(&model, &ask).revision, "a");
    }

    #[test]
    fn a_canary_without_ready_pods_costs_nobody_an_answer() {
        let mut model = model(10_000);
        model.traffic.mirror = Some(Mirror { revision: "b".into(), percent: 100 });
        model.revisions[1] = revision("b", false);
        let routed = route(&model, &Ask { revision: Some("b".into()), ..request(0) });
        assert_eq!(routed, Routed { revision: "a".into(), is_canary: false, mirror: None });
        model.revisions.pop();
        assert_eq!(route(&model, &request(0)).revision, "a");
    }

    #[test]
    fn each_sticky_key_falls_back_to_those_below_it() {
        let full = Ask {
            session: Some("s".into()),
            deep: Some(1),
            user: Some("u".into()),
            api_key: Some(2),
            request_id: Some("r".into()),
            ..Ask::default()
        };
        let key = |from, ask: &Ask| sticky_key(from, ask);
        assert_eq!(key(StickyKey::Conversation, &full), b"s");
        let without = Ask { session: None, ..full.clone() };
        assert_eq!(key(StickyKey::Conversation, &without), 1_u64.to_le_bytes());
        let without = Ask { deep: None, ..without };
        assert_eq!(key(StickyKey::Conversation, &without), b"u");
        let without = Ask { user: None, ..without };
        assert_eq!(key(StickyKey::User, &without), 2_u64.to_le_bytes());
        let without = Ask { api_key: None, ..without };
        assert_eq!(key(StickyKey::APIKey, &without), b"r");
        assert_eq!(key(StickyKey::Request, &full), b"r");
    }

    proptest! {
        #[test]
        fn a_rising_weight_moves_nobody_out(number: u32, low in 0_u16..=10_000, more in 0_u16..=10_000) {
            let before = route(&model(low), &request(number)).is_canary;
            let after = route(&model(low.saturating_add(more).min(10_000)), &request(number)).is_canary;
            prop_assert!(!before || after);
        }
    }
}
