//! Times with other bounds. Pure: the time is an argument.

use crds::model::{AutoscalingPolicy, ScaleSchedule};
use judgement::autoscale::ScheduleBounds;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::problem::{Problem, Reason};

/// The bounds of the schedules that are active at `now`, the highest of several; `None` if none is. One that cannot be
/// read is never active; [`check`] has said so.
pub fn bounds(policy: &AutoscalingPolicy, now: Timestamp) -> Option<ScheduleBounds> {
    let active = || policy.schedules.iter().filter(|schedule| is_active(schedule, now).unwrap_or(false));
    active().next()?;
    let highest = |bound: fn(&ScaleSchedule) -> Option<i32>| {
        active().filter_map(bound).max().map(|count| u32::try_from(count).unwrap_or(0))
    };
    Some(ScheduleBounds {
        min_replicas: highest(|schedule| schedule.min_replicas),
        max_replicas: highest(|schedule| schedule.max_replicas),
    })
}

/// Whether all schedules can be read.
pub fn check(policy: &AutoscalingPolicy, now: Timestamp) -> Result<(), Problem> {
    policy.schedules.iter().try_for_each(|schedule| {
        is_active(schedule, now).map(drop).map_err(|error| {
            let ScaleSchedule { name, schedule, .. } = schedule;
            let last_line = error.lines().last().unwrap_or_default();
            let what = last_line.trim_start_matches([' ', '^']);
            Problem::new(
                Reason::InvalidSchedule,
                format!(
                    "spec.autoscaling.schedules[{name}].schedule {schedule:?} cannot be read: {what}; write it as a \
                     CronJob does, such as \"0 8 * * 1-5\", and the time zone as an IANA name into timeZone"
                ),
            )
        })
    })
}

fn is_active(schedule: &ScaleSchedule, now: Timestamp) -> Result<bool, String> {
    let zone = schedule.time_zone.as_deref().unwrap_or("UTC");
    let crontab = cronexpr::parse_crontab(&format!("{} {zone}", schedule.schedule.trim()))
        .map_err(|error| error.to_string())?;
    let duration = SignedDuration::from_secs(schedule.duration_seconds.into());
    let began = now.checked_sub(duration).map_err(|error| error.to_string())?;
    // A day that never comes, such as February 30, is found nowhere.
    Ok(crontab.find_next(began).is_ok_and(|next| next.timestamp() <= now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(
        cron: &str,
        zone: Option<&str>,
        hours: i32,
        min: Option<i32>,
        max: Option<i32>,
    ) -> ScaleSchedule {
        ScaleSchedule {
            name: "day".into(),
            schedule: cron.into(),
            time_zone: zone.map(str::to_owned),
            duration_seconds: hours * 3_600,
            min_replicas: min,
            max_replicas: max,
        }
    }

    fn policy(schedules: Vec<ScaleSchedule>) -> AutoscalingPolicy {
        AutoscalingPolicy { max_replicas: 9, schedules, ..AutoscalingPolicy::default() }
    }

    fn check_min(schedules: Vec<ScaleSchedule>, at: &str, expected: Option<(Option<u32>, Option<u32>)>) {
        let found = bounds(&policy(schedules), at.parse().unwrap());
        assert_eq!(found.map(|bounds| (bounds.min_replicas, bounds.max_replicas)), expected, "at {at}");
    }

    #[test]
    fn a_schedule_holds_from_its_time_for_its_duration_in_its_zone() {
        // A Monday in winter: eight o'clock in Berlin is seven in UTC.
        let office = || vec![schedule("0 8 * * 1-5", Some("Europe/Berlin"), 10, Some(3), None)];
        check_min(office(), "2026-01-05T06:59:59Z", None);
        check_min(office(), "2026-01-05T07:00:00Z", Some((Some(3), None)));
        check_min(office(), "2026-01-05T16:59:59Z", Some((Some(3), None)));
        check_min(office(), "2026-01-05T17:00:00Z", None);
        check_min(office(), "2026-01-04T12:00:00Z", None);
        // In summer it is six.
        check_min(office(), "2026-07-06T06:00:00Z", Some((Some(3), None)));
    }

    #[test]
    fn without_a_zone_it_is_utc_and_the_highest_bounds_count() {
        let both = || {
            vec![
                schedule("0 8 * * *", None, 10, Some(3), Some(5)),
                schedule("0 9 * * *", None, 1, Some(2), Some(8)),
            ]
        };
        check_min(both(), "2026-01-05T08:30:00Z", Some((Some(3), Some(5))));
        check_min(both(), "2026-01-05T09:30:00Z", Some((Some(3), Some(8))));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_cure() {
        for (cron, zone) in [("0 25 * * *", None), ("0 8 * * *", Some("Berlin")), ("@often now now", None)] {
            let problem =
                super::check(&policy(vec![schedule(cron, zone, 1, Some(1), None)]), Timestamp::UNIX_EPOCH);
            let problem = problem.unwrap_err();
            assert_eq!(problem.reason, Reason::InvalidSchedule);
            assert!(problem.message.starts_with("spec.autoscaling.schedules[day].schedule"), "{problem:?}");
        }
        let never = policy(vec![schedule("0 0 30 2 *", None, 1, Some(1), None)]);
        assert_eq!(bounds(&never, Timestamp::UNIX_EPOCH), None);
    }
}
