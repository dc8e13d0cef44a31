//! What gateways have said of one model's flags and experiments, added up. Sums only grow, so a lost or doubled report
//! changes nothing. Pure.

use std::collections::BTreeMap;

use crds::report::{CENTROIDS_MAX, DRAWS_MAX, DrawSums, LOTS_MAX, LotSums, Sample};

use super::DrawKey;

/// Gateways that are added up, those that have gone included.
const GATEWAYS_MAX: usize = 64;
/// Flags and experiments of one model, under an old and a new definition.
const KEPT_MAX: usize = 2 * DRAWS_MAX;

/// All of one model.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Heard(BTreeMap<DrawKey, Sums>);

/// One flag or experiment.
#[derive(Debug, Clone, PartialEq, Default)]
struct Sums {
    /// The latest of each gateway, by its pod's UID.
    by_gateway: BTreeMap<String, Vec<LotSums>>,
    /// Of gateways' processes that have ended.
    before: Vec<LotSums>,
}

impl Heard {
    /// Takes in what a gateway has counted since its process began.
    pub(super) fn hear(&mut self, gateway: &str, draws: &[DrawSums]) {
        for draw in draws.iter().take(DRAWS_MAX) {
            let key =
                DrawKey { kind: draw.kind, name: draw.name.clone(), definition: draw.definition.clone() };
            if self.0.contains_key(&key) || self.0.len() < KEPT_MAX {
                self.0.entry(key).or_default().hear(gateway, &draw.lots);
            }
        }
    }

    /// What is known of these; everything else is forgotten.
    pub(super) fn look(&mut self, declared: &[DrawKey]) -> Vec<DrawSums> {
        self.0.retain(|key, _| declared.contains(key));
        let sums = |key: &DrawKey| {
            Some(DrawSums {
                kind: key.kind,
                name: key.name.clone(),
                definition: key.definition.clone(),
                lots: self.0.get(key)?.sum(),
            })
        };
        declared.iter().filter_map(sums).collect()
    }
}

impl Sums {
    fn hear(&mut self, gateway: &str, lots: &[LotSums]) {
        let last = self.by_gateway.get(gateway);
        if last.is_none() && self.by_gateway.len() >= GATEWAYS_MAX {
            return;
        }
        if let Some(ended) = last.filter(|last| requests(last) > requests(lots)) {
            self.before = plus(&self.before, ended);
        }
        self.by_gateway.insert(gateway.to_owned(), lots.iter().take(LOTS_MAX).map(bounded).collect());
    }

    fn sum(&self) -> Vec<LotSums> {
        self.by_gateway.values().fold(self.before.clone(), |sum, lots| plus(&sum, lots))
    }
}

fn requests(lots: &[LotSums]) -> u64 {
    lots.iter().map(|lot| lot.requests_total).fold(0, u64::saturating_add)
}

/// Both together. Lots of one definition have the same names in the same order.
fn plus(one: &[LotSums], other: &[LotSums]) -> Vec<LotSums> {
    if one.is_empty() {
        return other.to_vec();
    }
    one.iter().zip(other).map(|(one, other)| one.plus(other)).collect()
}

fn bounded(lot: &LotSums) -> LotSums {
    let bounded = |sample: &Sample| Sample {
        centroids: sample.centroids.iter().take(CENTROIDS_MAX).copied().collect(),
        ..sample.clone()
    };
    LotSums {
        first_token: bounded(&lot.first_token),
        inter_token: bounded(&lot.inter_token),
        duration: bounded(&lot.duration),
        output_tokens: bounded(&lot.output_tokens),
        ..lot.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(definition: &str, requests: [u64; 2]) -> DrawSums {
        let lot = |(name, requests_total): (&str, u64)| LotSums {
            name: name.to_owned(),
            requests_total,
            duration: Sample { count: requests_total, centroids: vec![(5.0, 1.0); 200], ..Sample::default() },
            ..LotSums::default()
        };
        let lots = [("a", requests[0]), ("b", requests[1])].map(lot).to_vec();
        DrawSums { name: "size".into(), definition: definition.into(), lots, ..DrawSums::default() }
    }

    fn look(heard: &mut Heard, definition: &str) -> Vec<u64> {
        let key = DrawKey { kind: draw("", [0; 2]).kind, name: "size".into(), definition: definition.into() };
        let found = heard.look(&[key]);
        found.iter().flat_map(|draw| &draw.lots).map(|lot| lot.requests_total).collect()
    }

    #[test]
    fn gateways_are_added_up_and_one_that_begins_anew_goes_on() {
        let mut heard = Heard::default();
        heard.hear("g1", &[draw("x", [3, 4])]);
        heard.hear("g2", &[draw("x", [10, 20])]);
        heard.hear("g1", &[draw("x", [5, 6])]);
        assert_eq!(look(&mut heard, "x"), [15, 26]);
        heard.hear("g1", &[draw("x", [5, 6])]);
        assert_eq!(look(&mut heard, "x"), [15, 26], "a doubled report changes nothing");
        heard.hear("g1", &[draw("x", [1, 0])]);
        assert_eq!(look(&mut heard, "x"), [16, 26]);
    }

    #[test]
    fn another_definition_begins_anew() {
        let mut heard = Heard::default();
        heard.hear("g1", &[draw("x", [3, 4])]);
        heard.hear("g1", &[draw("y", [1, 1])]);
        assert_eq!(look(&mut heard, "y"), [1, 1]);
        assert_eq!(look(&mut heard, "x"), [0; 0], "forgotten");
    }

    #[test]
    fn memory_is_bounded() {
        let mut heard = Heard::default();
        for number in 0..1_000 {
            heard.hear(&format!("g{number}"), &[draw("x", [1, 1])]);
            heard.hear("g", &[draw(&format!("x{number}"), [1, 1])]);
        }
        assert_eq!(heard.0.len(), KEPT_MAX);
        assert!(heard.0.values().all(|sums| sums.by_gateway.len() <= GATEWAYS_MAX));
        let lots = heard.0.values().flat_map(|sums| sums.by_gateway.values().flatten());
        assert!(lots.map(|lot| lot.duration.centroids.len()).all(|count| count <= CENTROIDS_MAX));
    }
}
