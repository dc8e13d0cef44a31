//! The roles of revisions, whatever has happened to them.

use operator::revision::Revision;
use operator::rollout::{ALL, Roles, Standing, roles};
use proptest::prelude::*;

fn revision((name, ready): (char, i32)) -> Revision {
    Revision {
        name: name.to_string(),
        ready,
        replicas: ready,
        replicas_told: 2,
        is_current: true,
        created: None,
        refusal: None,
    }
}

/// Up to four revisions a to d with 0 to 2 ready pods, of which any may be the target or the stable one.
fn revisions() -> impl Strategy<Value = Vec<Revision>> {
    let ready = proptest::option::of(0..=2_i32);
    proptest::array::uniform4(ready).prop_map(|ready| {
        let existing = ['a', 'b', 'c', 'd'].into_iter().zip(ready);
        existing.filter_map(|(name, ready)| Some(revision((name, ready?)))).collect()
    })
}

fn names<'roles>(roles: &'roles Roles<'_>) -> Vec<&'roles str> {
    let leavers = roles.leavers.iter().map(|leaver| leaver.name.as_str());
    leavers.chain(roles.keeper.map(|keeper| keeper.name.as_str())).collect()
}

proptest! {
    #[test]
    fn what_serves_goes_on_serving(
        revisions in revisions(),
        stable in proptest::option::of("[a-d]"),
        share in 0..=ALL,
        is_complete in any::<bool>(),
        is_proven in any::<bool>(),
    ) {
        let target = "a";
        let current = revisions.iter().find(|revision| revision.name == target);
        // All wanted pods are ready only where there are pods.
        let is_complete = is_complete && current.is_some_and(|current| current.ready > 0);
        let standing = Standing {
            target, revisions: &revisions, stable: stable.as_deref(), share, is_complete, is_proven,
        };
        let roles = roles(&standing);

        let mut others: Vec<&str> = names(&roles);
        others.sort_unstable();
        let mut expected: Vec<&str> =
            revisions.iter().map(|revision| revision.name.as_str()).filter(|name| *name != target).collect();
        expected.sort_unstable();
        prop_assert_eq!(others, expected, "each other revision either stays or goes");

        let serves = |revision: &Revision| revision.ready > 0;
        if revisions.iter().any(serves) {
            let stays = current.is_some_and(serves) || roles.keeper.is_some_and(serves);
            prop_assert!(stays, "somebody who serves stays");
        }
        let stable = revisions.iter().find(|revision| Some(revision.name.as_str()) == standing.stable);
        if let Some(stable) = stable.filter(|stable| stable.name != target && serves(stable))
            && !(is_complete && is_proven && share == ALL)
        {
            prop_assert_eq!(roles.keeper, Some(stable), "the stable one stays until it is replaced");
            prop_assert!(!roles.is_stable);
        }
        prop_assert!(roles.weight == 0 || (is_complete && is_proven && !roles.is_stable));
        prop_assert!(roles.weight == 0 || roles.weight == share);
    }

    #[test]
    fn a_larger_share_never_takes_anything_from_the_target(
        revisions in revisions(), stable in proptest::option::of("[a-d]"), shares in [0..=ALL, 0..=ALL],
    ) {
        let got = |share| {
            let standing = Standing {
                target: "a", revisions: &revisions, stable: stable.as_deref(), share,
                is_complete: true, is_proven: true,
            };
            let roles = roles(&standing);
            if roles.is_stable { ALL } else { roles.weight }
        };
        let [low, high] = [shares[0].min(shares[1]), shares[0].max(shares[1])];
        prop_assert!(got(low) <= got(high));
    }
}
