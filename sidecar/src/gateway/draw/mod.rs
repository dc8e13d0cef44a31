//! Feature flags and experiments: what a request draws, what it therefore asks for and carries, and what comes of it.
//! A flag is a draw with the lots `on` and `off`, an experiment one with a lot for each variant.
//!
//! Here is who draws what; in [`body`] what becomes of the request's body, in [`part`] how one request takes part, in
//! [`tally`] the figures, and in `metrics` these for Prometheus. All but the last two are pure.

pub mod body;
pub(super) mod metrics;
pub mod part;
pub mod tally;

use crds::split;

use super::ask::Ask;
use super::route::sticky_key;
use super::view::{DrawView, KillSwitch, ModelView};

/// The lot that a request has in each of the model's draws, in their order; `None` where it takes no part. From the view
/// and the request alone, so that all gateways draw alike.
pub fn draw(model: &ModelView, ask: &Ask) -> Vec<Option<usize>> {
    // Whoever throws a switch wants to be rid of whatever might be the cause, and whoever names a revision, as the
    // operator's probes do, wants to know how that one is.
    let takes_part = model.kill_switch == KillSwitch::Off && ask.is_generation && ask.revision.is_none();
    model.draws.iter().filter(|_| takes_part).map(|draw| lot(draw, ask)).collect()
}

fn lot(draw: &DrawView, ask: &Ask) -> Option<usize> {
    let bucket = u32::from(split::bucket(&draw.salt, &sticky_key(draw.sticky_key, ask)));
    let mut end = 0;
    draw.lots.iter().position(|lot| {
        end += u32::from(lot.weight_basis_points);
        bucket < end
    })
}

#[cfg(test)]
mod tests {
    use crds::report::DrawKind;
    use crds::split::{Arm, Table};
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::route::route;
    use crate::gateway::view::{EndpointView, LotView, RevisionView, StickyKey, Traffic};

    fn draw_of(kind: DrawKind, name: &str, weights: &[u16]) -> DrawView {
        let lots = weights.iter().enumerate().map(|(number, weight)| LotView {
            name: format!("lot-{number}"),
            weight_basis_points: *weight,
            ..LotView::default()
        });
        DrawView {
            kind,
            name: name.into(),
            salt: format!("uid/{name}"),
            lots: lots.collect(),
            ..DrawView::default()
        }
    }

    fn flag(name: &str, enabled_basis_points: u16) -> DrawView {
        draw_of(DrawKind::Flag, name, &[enabled_basis_points, 10_000 - enabled_basis_points])
    }

    fn request(number: u32) -> Ask {
        Ask { session: Some(format!("session-{number}")), is_generation: true, ..Ask::default() }
    }

    fn drawn(model: &ModelView, number: u32) -> Vec<Option<usize>> {
        draw(model, &request(number))
    }

    /// How strongly two events go together among 100,000 requests: the correlation of being in both.
    fn correlation(one: impl Fn(u32) -> bool, other: impl Fn(u32) -> bool) -> f64 {
        let requests = 100_000;
        let [mut ones, mut others, mut both] = [0.0; 3];
        for number in 0..requests {
            let (one, other) = (one(number), other(number));
            ones += f64::from(u8::from(one));
            others += f64::from(u8::from(other));
            both += f64::from(u8::from(one && other));
        }
        let [p, q, r] = [ones, others, both].map(|count| count / f64::from(requests));
        (r - p * q) / (p * (1.0 - p) * q * (1.0 - q)).sqrt()
    }

    #[test]
    fn variants_get_their_shares_and_the_rest_takes_no_part() {
        let model = ModelView {
            draws: vec![draw_of(DrawKind::Experiment, "size", &[2_000, 3_000])],
            ..ModelView::default()
        };
        let share = |lot: Option<usize>| {
            (0..100_000).filter(|number| drawn(&model, *number) == [lot]).count() as f64 / 1_000.0
        };
        for (lot, percent) in [(Some(0), 20.0), (Some(1), 30.0), (None, 50.0)] {
            assert!((share(lot) - percent).abs() <= 0.5, "{lot:?}: {}%", share(lot));
        }
    }

    /// A shared salt would put the same people first everywhere (Unleash/unleash-client-node#533). With 100,000 requests
    /// a correlation of independent draws exceeds 0.0125 once in 10,000 times.
    #[test]
    fn draws_depend_neither_on_one_another_nor_on_the_canary() {
        let ready = |name: &str| RevisionView {
            name: name.into(),
            endpoints: vec![EndpointView {
                address: ([10, 0, 0, 1], 80).into(),
                pod: "p".into(),
                is_ready: true,
                is_leaving: false,
            }],
            ..RevisionView::default()
        };
        let others = vec![Arm { revision: "b".into(), weight_basis_points: 2_500 }];
        let table = Table { salt: "uid/b".into(), stable: "a".into(), others };
        let model = ModelView {
            traffic: Traffic { table, ..Traffic::default() },
            revisions: vec![ready("a"), ready("b")],
            draws: vec![
                flag("one", 2_500),
                flag("other", 2_500),
                draw_of(DrawKind::Experiment, "size", &[2_500, 7_500]),
            ],
            ..ModelView::default()
        };
        let has_first = |draw: usize| {
            let model = &model;
            move |number| drawn(model, number)[draw] == Some(0)
        };
        let is_canary = |number| route(&model, &request(number)).is_canary;
        for (name, found) in [
            ("two flags", correlation(has_first(0), has_first(1))),
            ("a flag and an experiment", correlation(has_first(1), has_first(2))),
            ("a flag and the canary", correlation(has_first(0), is_canary)),
            ("an experiment and the canary", correlation(has_first(2), is_canary)),
        ] {
            assert!(found.abs() < 0.0125, "{name}: {found}");
        }
        assert!(correlation(has_first(0), has_first(0)) > 0.99, "the check above finds what it looks for");
    }

    #[test]
    fn a_client_keeps_its_lot_by_the_sticky_key() {
        let mut by_user = flag("one", 5_000);
        by_user.sticky_key = StickyKey::User;
        let model = ModelView { draws: vec![by_user], ..ModelView::default() };
        let ask = |user: &str, number| Ask { user: Some(user.into()), ..request(number) };
        for user in ["ann", "bob", "cyd"] {
            let first = draw(&model, &ask(user, 0));
            assert!((1..50).all(|number| draw(&model, &ask(user, number)) == first), "{user}");
        }
    }

    #[test]
    fn nothing_is_drawn_under_a_kill_switch_for_a_named_revision_and_for_what_generates_nothing() {
        let model = ModelView { draws: vec![flag("one", 10_000)], ..ModelView::default() };
        assert_eq!(drawn(&model, 1), [Some(0)]);
        for kill_switch in [KillSwitch::Rollout, KillSwitch::Model] {
            assert!(drawn(&ModelView { kill_switch, ..model.clone() }, 1).is_empty());
        }
        assert!(draw(&model, &Ask { is_generation: false, ..request(1) }).is_empty());
        assert!(draw(&model, &Ask { revision: Some("a".into()), ..request(1) }).is_empty());
    }

    proptest! {
        #[test]
        fn a_larger_share_takes_a_flag_from_nobody(number: u32, low in 0_u16..=10_000, more in 0_u16..=10_000) {
            let is_on = |share| {
                drawn(&ModelView { draws: vec![flag("one", share)], ..ModelView::default() }, number) == [Some(0)]
            };
            prop_assert!(!is_on(low) || is_on(low.saturating_add(more).min(10_000)));
        }
    }
}
