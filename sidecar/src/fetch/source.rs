//! Which files a model consists of, and where each comes from and goes to. Pure.

use std::path::PathBuf;

use crds::report::{Failure, Reason};
use reqwest::Url;

use super::{Options, failure};

/// Parts of a split model. The largest published ones have some dozens.
const PARTS_MAX: u32 = 512;

/// One file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it is.
    pub url: Url,
    /// Where it goes.
    pub path: PathBuf,
    /// What it must hash to, in lower-case hex.
    pub sha256: Option<String>,
}

/// The files in order.
pub fn parts(options: &Options) -> Result<Vec<Part>, Failure> {
    let sha256 = options.sha256.as_deref().map(digest).transpose()?;
    let urls = match (&options.url, &options.repository) {
        (Some(url), _) => split_urls(url),
        (None, Some(repository)) => {
            let files = match options.files.as_slice() {
                [file] => split_names(file),
                files => files.to_vec(),
            };
            files.iter().map(|file| hub_url(options, repository, file)).collect::<Result<_, _>>()?
        }
        (None, None) => return Err(failure(Reason::SourceNotFound, "the model has no source")),
    };
    if let Some(url) = urls.iter().find(|url| !matches!(url.scheme(), "http" | "https")) {
        let message = format!("the scheme '{}' is not supported: use http or https", url.scheme());
        return Err(failure(Reason::SourceForbidden, message));
    }
    let place = |(index, url): (usize, Url)| {
        let path =
            if index == 0 { options.output.clone() } else { options.output.with_file_name(file_name(&url)) };
        Part { url, path, sha256: sha256.clone().filter(|_| index == 0) }
    };
    Ok(urls.into_iter().enumerate().map(place).collect())
}

fn digest(text: &str) -> Result<String, Failure> {
    let text = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let is_sha256 = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_sha256 {
        Ok(text)
    } else {
        Err(failure(Reason::DigestMismatch, "sha256 must be 64 hexadecimal digits"))
    }
}

fn hub_url(options: &Options, repository: &str, file: &str) -> Result<Url, Failure> {
    let mut url = options.endpoint.clone();
    let parts = repository.split('/').chain(["resolve", options.revision.as_str()]).chain(file.split('/'));
    let is_plain = |part: &&str| !part.is_empty() && *part != "." && *part != "..";
    if !parts.clone().all(|part| is_plain(&part)) {
        return Err(failure(
            Reason::SourceNotFound,
            format!("'{repository}' and '{file}' are not a repository and a file"),
        ));
    }
    url.path_segments_mut()
        .map_err(|()| failure(Reason::SourceNotFound, "the endpoint is not the address of a hub"))?
        .pop_if_empty()
        .extend(parts);
    Ok(url)
}

/// The last part of a path, which cannot lead anywhere else on our side.
fn file_name(url: &Url) -> String {
    let last = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
    let plain: String =
        last.chars().filter(|each| each.is_ascii_alphanumeric() || "._-".contains(*each)).collect();
    let plain = plain.trim_start_matches('.');
    if plain.is_empty() { "part.gguf".to_owned() } else { plain.to_owned() }
}

fn split_urls(url: &Url) -> Vec<Url> {
    let rename = |path: String| {
        let mut url = url.clone();
        url.set_path(&path);
        url
    };
    split_names(url.path()).into_iter().map(rename).collect()
}

/// `model-00001-of-00003.gguf` stands for three files.
fn split_names(name: &str) -> Vec<String> {
    let split = || {
        let stem = name.strip_suffix(".gguf")?;
        let (stem, count) = stem.rsplit_once("-of-")?;
        let (stem, first) = stem.rsplit_once('-')?;
        let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        (first == "00001" && is_number(count)).then_some(())?;
        let parts: u32 = count.parse().ok().filter(|parts| (1..=PARTS_MAX).contains(parts))?;
        Some((1..=parts).map(|part| format!("{stem}-{part:05}-of-{count}.gguf")).collect())
    };
    split().unwrap_or_else(|| vec![name.to_owned()])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn check(line: &[&str]) -> Result<Vec<(String, String)>, Reason> {
        let line = [&["fetch", "--output", "/models/out.gguf"], line].concat();
        let parts = parts(&Line::try_parse_from(line).unwrap().options).map_err(|failure| failure.reason)?;
        Ok(parts.iter().map(|part| (part.url.to_string(), part.path.display().to_string())).collect())
    }

    fn pair(url: &str, path: &str) -> (String, String) {
        (url.to_owned(), path.to_owned())
    }

    #[test]
    fn an_address_is_one_file() {
        assert_eq!(
            check(&["--url", "http://host/a/tiny.gguf?x=1"]),
            Ok(vec![pair("http://host/a/tiny.gguf?x=1", "/models/out.gguf")])
        );
    }

    #[test]
    fn a_split_model_is_all_its_files() {
        let line = [
            "--repository",
            "me/it",
            "--revision",
            "v1",
            "--endpoint",
            "https://hub/",
            "--file",
            "q/m-00001-of-00002.gguf",
        ];
        assert_eq!(
            check(&line),
            Ok(vec![
                pair("https://hub/me/it/resolve/v1/q/m-00001-of-00002.gguf", "/models/out.gguf"),
                pair("https://hub/me/it/resolve/v1/q/m-00002-of-00002.gguf", "/models/m-00002-of-00002.gguf"),
            ])
        );
        assert_eq!(check(&["--url", "http://h/m-00001-of-00003.gguf"]).unwrap().len(), 3);
        assert_eq!(check(&["--url", "http://h/m-00001-of-99999.gguf"]).unwrap().len(), 1);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(check(&["--url", "ftp://host/a"]), Err(Reason::SourceForbidden));
        assert_eq!(check(&["--url", "http://host/a", "--sha256", "abc"]), Err(Reason::DigestMismatch));
        assert_eq!(check(&["--repository", "me/..", "--file", "x.gguf"]), Err(Reason::SourceNotFound));
    }
}
