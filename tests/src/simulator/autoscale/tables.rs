//! The study as tables and plots.

use anyhow::Result;
use judgement::explain::table::Table;

use super::super::plot::{Frame, Line, draw};
use super::super::report::Folder;
use super::run::Outcome;
use super::scenario::{HOUR_S, Scenario};
use super::study::Row;

/// Means over the scenarios, a row for each rule and load time.
pub fn means(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "rule",
        "load time",
        "in time",
        "GPU-hours",
        "step overshoot (worst)",
        "turns per h",
        "starts per h, steady",
    ]);
    for row in rows {
        let step = row.of(Scenario::Step);
        let overshoot = step.map_or_else(String::new, |step| {
            format!("{:.2} ({:.2})", step.overshoot(), step.overshoot_worst())
        });
        let steady = row.of(Scenario::Steady);
        table.row([
            row.rule.clone(),
            format!("{:.0} s", row.load_time.median_s),
            format!("{:.1} %", row.attainment()),
            format!("{:.2}", row.gpu_hours()),
            overshoot,
            format!("{:.1}", row.turns()),
            steady.map_or_else(String::new, |steady| format!("{:.1}", steady.starts)),
        ]);
    }
    table
}

/// Attainment and pod-hours of each scenario.
pub fn by_scenario(rows: &[Row]) -> Table {
    let names = rows.first().map_or_else(Vec::new, |row| {
        row.scenarios.iter().map(|summary| format!("{:?}", summary.scenario)).collect()
    });
    let mut table = Table::new(["rule".to_owned(), "load time".to_owned()].into_iter().chain(names));
    for row in rows {
        let cell =
            |summary: &super::study::Summary| format!("{:.1} @{:.1}", summary.attainment, summary.gpu_hours);
        let cells = row.scenarios.iter().map(cell);
        table.row([row.rule.clone(), format!("{:.0} s", row.load_time.median_s)].into_iter().chain(cells));
    }
    table
}

/// Attainment against pod-hours, a line for each rule through its load times.
pub fn draw_front(folder: &Folder, file: &str, rows: &[Row]) -> Result<()> {
    let mut lines: Vec<Line> = Vec::new();
    for row in rows {
        let point = (row.gpu_hours(), row.attainment());
        match lines.iter_mut().find(|line| line.name == row.rule) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name: row.rule.clone(), points: vec![point], is_scatter: false }),
        }
    }
    let frame = Frame {
        title: "Requests in time against what was paid, each line from fast to slow loading",
        x: "GPU-hours per hour of load",
        y: "requests in time, %",
        from_zero: false,
    };
    draw(&folder.file(file), &frame, &lines)
}

/// Pods over time of one run of each rule, and the need.
pub fn draw_course(
    folder: &Folder,
    file: &str,
    title: &str,
    need: Line,
    runs: &[(String, Outcome)],
) -> Result<()> {
    let pods = |(name, outcome): &(String, Outcome)| Line {
        name: name.clone(),
        points: steps(
            outcome.course.iter().map(|(at_s, _, replicas, _)| (at_s / 60.0, f64::from(*replicas))),
        ),
        is_scatter: false,
    };
    let lines: Vec<Line> = runs.iter().map(pods).chain([need]).collect();
    let frame = Frame { title, x: "minutes", y: "pods ordered", from_zero: true };
    draw(&folder.file(file), &frame, &lines)
}

/// The work that arrives, as a line in pods: means of a minute.
pub fn need(load: &super::scenario::Load, pod: &judgement::autoscale::PodModel) -> Line {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "minutes of an hour")]
    let minute = |at_s: f64| (at_s / 60.0) as usize;
    let mut work = vec![0.0; minute(load.end_s.max(HOUR_S)) + 1];
    for request in &load.requests {
        work[minute(request.at_s)] += pod.request(request.prompt_tokens, request.output_tokens) / 60.0;
    }
    let points = work.iter().enumerate().map(|(at, pods)| (at as f64 + 0.5, *pods)).collect();
    Line { name: "work that arrives".to_owned(), points, is_scatter: false }
}

/// A line that goes up and down in steps, its level points left out.
fn steps(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut line: Vec<(f64, f64)> = Vec::new();
    let mut end = None;
    for (x, y) in points {
        match line.last().copied() {
            Some((_, before)) if before.total_cmp(&y).is_ne() => line.extend([(x, before), (x, y)]),
            None => line.push((x, y)),
            Some(_) => {}
        }
        end = Some((x, y));
    }
    line.extend(end);
    line
}
