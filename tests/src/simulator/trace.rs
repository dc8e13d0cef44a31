//! The Azure LLM inference traces of 2023 (Patel et al., CC-BY 4.0). The project ships a resampled extract
//! (`tests/data/azure-llm`, see its README): arrivals per second, and every fourth pair of sizes. The full files are
//! read when a folder is given.
//!
//! From the extract an hour is drawn again with each seed: arrivals uniform within their second, sizes from the eight
//! kept pairs around the same place, so that slow changes of size stay.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rand::RngExt;

use super::arrivals::Request;
use super::random::Random;

/// Which of the two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Conversations: 5.5 requests per second, slow waves.
    Conversation,
    /// Code completion: 2.6 requests per second, in bursts; most of the time nothing.
    Code,
}

impl Service {
    /// The name of its files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conversation => "conv",
            Self::Code => "code",
        }
    }
}

/// Pairs of (prompt tokens, output tokens) to draw from.
#[derive(Debug, Clone)]
pub struct Sizes(Vec<(u32, u32)>);

impl Sizes {
    /// A pair at random.
    pub fn draw(&self, random: &mut Random) -> (u32, u32) {
        self.0[random.random_range(0..self.0.len())]
    }

    /// Requests at `times`, each with a pair at random.
    pub fn fill(&self, times: &[f64], random: &mut Random) -> Vec<Request> {
        let request = |&at_s| {
            let (prompt_tokens, output_tokens) = self.draw(random);
            Request { at_s, prompt_tokens, output_tokens }
        };
        times.iter().map(request).collect()
    }

    /// The pairs themselves, in the order of the trace.
    pub fn pairs(&self) -> &[(u32, u32)] {
        &self.0
    }
}

/// One service's hour.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Its sizes.
    pub sizes: Sizes,
    arrivals: Arrivals,
}

#[derive(Debug, Clone)]
enum Arrivals {
    /// The full file: times in seconds, one for each pair of sizes.
    Exact(Vec<f64>),
    /// The extract: arrivals per second.
    PerSecond(Vec<u16>),
}

/// Both services.
#[derive(Debug, Clone)]
pub struct Traces {
    /// Conversations.
    pub conversation: Trace,
    /// Code completion.
    pub code: Trace,
}

impl Traces {
    /// The extract that ships with the project, or the full files `conv.csv` and `code.csv` of `folder`.
    pub fn open(folder: Option<&Path>) -> Result<Self> {
        let Some(folder) = folder else { return Self::extract() };
        Ok(Self {
            conversation: Trace::read(&folder.join("conv.csv"))?,
            code: Trace::read(&folder.join("code.csv"))?,
        })
    }

    fn extract() -> Result<Self> {
        Ok(Self {
            conversation: Trace::parse_extract(
                include_str!("../../data/azure-llm/conv-arrivals.txt"),
                include_str!("../../data/azure-llm/conv-sizes.csv"),
            )?,
            code: Trace::parse_extract(
                include_str!("../../data/azure-llm/code-arrivals.txt"),
                include_str!("../../data/azure-llm/code-sizes.csv"),
            )?,
        })
    }

    /// The trace of one service.
    pub const fn of(&self, service: Service) -> &Trace {
        match service {
            Service::Conversation => &self.conversation,
            Service::Code => &self.code,
        }
    }
}

impl Trace {
    /// Reads a full file with the columns `TIMESTAMP`, `ContextTokens`, `GeneratedTokens`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read trace {}", path.display()))?;
        let mut times = Vec::new();
        let mut pairs = Vec::new();
        let mut last = 0.0;
        for (number, line) in text.lines().enumerate().skip(1) {
            let fields: Vec<&str> = line.trim().split(',').collect();
            let place = || format!("{} line {}", path.display(), number + 1);
            ensure!(fields.len() == 3, "{}: expected TIMESTAMP,ContextTokens,GeneratedTokens", place());
            // The files say when a request came to 100 ns but are not quite in order.
            last = seconds_of_day(fields[0]).with_context(place)?.max(last);
            times.push(last);
            pairs.push((fields[1].parse().with_context(place)?, fields[2].parse().with_context(place)?));
        }
        ensure!(!times.is_empty(), "trace {} has no rows", path.display());
        let start = times[0];
        for at in &mut times {
            *at -= start;
        }
        Ok(Self { sizes: Sizes(pairs), arrivals: Arrivals::Exact(times) })
    }

    fn parse_extract(arrivals: &str, sizes: &str) -> Result<Self> {
        let counts = arrivals.split_ascii_whitespace().map(str::parse).collect::<Result<Vec<u16>, _>>()?;
        let pair = |line: &str| -> Result<(u32, u32)> {
            let (prompt, output) = line.split_once(',').context("expected prompt,output")?;
            Ok((prompt.parse()?, output.parse()?))
        };
        let pairs = sizes.lines().skip(1).map(pair).collect::<Result<Vec<_>>>()?;
        ensure!(!pairs.is_empty(), "the extract has no sizes");
        Ok(Self { sizes: Sizes(pairs), arrivals: Arrivals::PerSecond(counts) })
    }

    /// How long the trace lasts, seconds.
    pub fn seconds(&self) -> f64 {
        match &self.arrivals {
            Arrivals::Exact(times) => times.last().map_or(0.0, |last| last.ceil()),
            Arrivals::PerSecond(counts) => counts.len() as f64,
        }
    }

    /// The hour's requests. Full files give the same hour always, the extract one by `random`.
    pub fn requests(&self, random: &mut Random) -> Vec<Request> {
        match &self.arrivals {
            Arrivals::Exact(times) => {
                let request = |(&at_s, &(prompt_tokens, output_tokens)): (&f64, &(u32, u32))| Request {
                    at_s,
                    prompt_tokens,
                    output_tokens,
                };
                times.iter().zip(&self.sizes.0).map(request).collect()
            }
            Arrivals::PerSecond(counts) => self.redraw(counts, random),
        }
    }

    fn redraw(&self, counts: &[u16], random: &mut Random) -> Vec<Request> {
        let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
        let kept = self.sizes.0.len();
        let mut requests = Vec::with_capacity(total);
        for (second, count) in counts.iter().enumerate() {
            let mut offsets: Vec<f64> = (0..*count).map(|_| random.random()).collect();
            offsets.sort_by(f64::total_cmp);
            for offset in offsets {
                // The place among the kept pairs that this request had in the hour, give or take four.
                let place = (requests.len() * kept / total + random.random_range(0..8)).saturating_sub(4);
                let (prompt_tokens, output_tokens) = self.sizes.0[place.min(kept - 1)];
                requests.push(Request { at_s: second as f64 + offset, prompt_tokens, output_tokens });
            }
        }
        requests
    }

    /// Writes the extract of this (full) trace as `NAME-arrivals.txt` and `NAME-sizes.csv` into `folder`.
    pub fn write_extract(&self, service: Service, folder: &Path) -> Result<()> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of an hour")]
        let second = |at_s: f64| at_s as usize;
        let mut counts = vec![0_u32; second(self.seconds()) + 1];
        for request in self.requests(&mut super::random::stream(0, "unused by full files")) {
            counts[second(request.at_s)] += 1;
        }
        let minute = |counts: &[u32]| counts.iter().map(u32::to_string).collect::<Vec<_>>().join(" ") + "\n";
        let arrivals: String = counts.chunks(60).map(minute).collect();
        let sizes = self.sizes.0.iter().step_by(4).map(|(prompt, output)| format!("{prompt},{output}"));
        let sizes: Vec<String> = sizes.collect();
        let name = service.name();
        fs::create_dir_all(folder).with_context(|| format!("make folder {}", folder.display()))?;
        fs::write(folder.join(format!("{name}-arrivals.txt")), arrivals).context("write arrivals")?;
        fs::write(
            folder.join(format!("{name}-sizes.csv")),
            format!("prompt_tokens,output_tokens\n{}\n", sizes.join("\n")),
        )
        .context("write sizes")
    }
}

/// Seconds since midnight of `2023-11-16 18:17:03.9799600`. Both traces lie within one day.
fn seconds_of_day(timestamp: &str) -> Result<f64> {
    let time = timestamp.split_once([' ', 'T']).context("timestamp without a time")?.1;
    time.trim_end_matches('Z')
        .split(':')
        .try_fold(0.0, |sum, part| Ok(sum * 60.0 + part.parse::<f64>().context("timestamp is not a time")?))
}

#[cfg(test)]
mod tests {
    use super::super::random::stream;
    use super::*;

    #[test]
    fn the_extract_keeps_rate_length_and_mean_sizes_of_the_traces() {
        let traces = Traces::open(None).unwrap();
        // Published: 19 366 requests of 1 155 + 211 tokens in 3 502 s; 8 819 of 2 048 + 28 in 3 436 s.
        for (service, count, seconds, prompt, output) in [
            (Service::Conversation, 19_366, 3_502.0, 1_155.0, 211.0),
            (Service::Code, 8_819, 3_436.0, 2_048.0, 28.0),
        ] {
            let trace = traces.of(service);
            let requests = trace.requests(&mut stream(1, "trace"));
            let mean = |size: fn(&Request) -> u32| {
                requests.iter().map(|request| f64::from(size(request))).sum::<f64>() / requests.len() as f64
            };
            assert!(requests.len().abs_diff(count) <= 1, "{} requests", requests.len());
            assert!((trace.seconds() - seconds).abs() < 2.0, "{} s", trace.seconds());
            assert!(
                (mean(|request| request.prompt_tokens) / prompt - 1.0).abs() < 0.03,
                "{service:?} prompts"
            );
            assert!(
                (mean(|request| request.output_tokens) / output - 1.0).abs() < 0.06,
                "{service:?} outputs"
            );
            assert!(requests.windows(2).all(|pair| pair[0].at_s <= pair[1].at_s));
        }
    }

    #[test]
    fn a_time_of_day_is_read_in_seconds() {
        assert!((seconds_of_day("2023-11-16 18:17:03.9799600").unwrap() - 65_823.979_96).abs() < 1e-6);
        assert!(seconds_of_day("2023-11-16").is_err());
    }
}
