//! How a pool's replicas are shared between its models. Pure.

use k8s_openapi::jiff::Timestamp;

/// What one model asks of its pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// When the model was made: older models are served first, so that a new one cannot take pods from a running
    /// one.
    pub created: Option<Timestamp>,
    /// The model's name; it orders models of the same second.
    pub model: String,
    /// Replicas that it asks for.
    pub replicas: i32,
    /// Pods of a former revision that stay beside them as long as nobody else asks for their room.
    pub kept: i32,
}

/// Replicas that `model` gets of `replicas_max`, which all claims share in order of age.
pub fn allot(claims: &[Claim], model: &str, replicas_max: i32) -> i32 {
    let mut in_order: Vec<&Claim> = claims.iter().collect();
    in_order.sort();
    let mut left = replicas_max;
    for claim in in_order {
        let granted = claim.replicas.min(left);
        if claim.model == model {
            return granted;
        }
        left -= granted;
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(created_second: i64, model: &str, replicas: i32) -> Claim {
        Claim {
            created: Some(Timestamp::from_second(created_second).unwrap()),
            model: model.to_owned(),
            replicas,
            kept: 0,
        }
    }

    fn check(claims: &[Claim], replicas_max: i32, expected: &[(&str, i32)]) {
        for (model, replicas) in expected {
            assert_eq!(allot(claims, model, replicas_max), *replicas, "{model}");
        }
    }

    #[test]
    fn older_models_are_served_first() {
        let claims = [claim(20, "young", 2), claim(10, "old", 3), claim(20, "zoo", 2)];
        check(&claims, 10, &[("old", 3), ("young", 2), ("zoo", 2)]);
        check(&claims, 4, &[("old", 3), ("young", 1), ("zoo", 0)]);
        check(&claims, 0, &[("old", 0), ("young", 0), ("zoo", 0)]);
    }

    proptest! {
        #[test]
        fn the_limit_is_kept_and_nothing_is_wasted(
            asked in proptest::collection::vec((0_i64..4, 0_i32..8), 1..12),
            replicas_max in 0_i32..40,
        ) {
            let claims: Vec<Claim> =
                asked.iter().enumerate().map(|(n, (at, count))| claim(*at, &n.to_string(), *count)).collect();
            let granted: i32 = claims.iter().map(|claim| allot(&claims, &claim.model, replicas_max)).sum();
            let total: i32 = claims.iter().map(|claim| claim.replicas).sum();
            prop_assert_eq!(granted, total.min(replicas_max));
        }
    }
}
