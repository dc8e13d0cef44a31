//! Which field of the spec a pod's failure is about. A pod knows what went wrong with an address or a file; only
//! here is it known which field said so. Pure.

use crds::model::Source;

use crate::problem::{Problem, Reason};

/// The same problem, its message beginning with the field to look at and what it holds.
pub fn name_field(problem: Problem, source: &Source) -> Problem {
    let field = match problem.reason {
        Reason::SourceUnreachable
        | Reason::SourceNotFound
        | Reason::SourceForbidden
        | Reason::NotGGUF
        | Reason::ModelTruncated
        | Reason::ModelInvalid => place(source),
        Reason::DigestMismatch => Some("spec.source.sha256".to_owned()),
        Reason::DoesNotFit => Some("spec.engine".to_owned()),
        Reason::StorageFull => Some("spec.modelCache.size of the pool".to_owned()),
        _ => None,
    };
    match field {
        Some(field) => Problem::new(problem.reason, format!("{field}: {}", problem.message)),
        None => problem,
    }
}

/// The field that says where the model is, and where that is; never what stands in a query, which may be a token.
fn place(source: &Source) -> Option<String> {
    if let Some(http) = &source.http {
        let address = http.url.split(['?', '#']).next().unwrap_or_default();
        return Some(format!("spec.source.http.url {address}"));
    }
    let hub = source.hugging_face.as_ref()?;
    let revision = hub.revision.as_deref().unwrap_or("main");
    let file = hub.files.first().map_or("", String::as_str);
    Some(format!("spec.source.huggingFace {}/{file} at {revision}", hub.repository))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::model::{HttpSource, HuggingFaceSource};

    fn check(reason: Reason, source: &Source, expected: &str) {
        assert_eq!(name_field(Problem::new(reason, "why"), source).message, expected);
    }

    #[test]
    fn a_url_is_named_without_its_query() {
        let url = "https://models.example.com/a.gguf?token=secret".to_owned();
        let source = Source { http: Some(HttpSource { url }), ..Source::default() };
        check(Reason::NotGGUF, &source, "spec.source.http.url https://models.example.com/a.gguf: why");
        check(Reason::DigestMismatch, &source, "spec.source.sha256: why");
        check(Reason::ImagePullFailed, &source, "why");
    }

    #[test]
    fn a_repository_is_named_with_file_and_revision() {
        let hub = HuggingFaceSource {
            repository: "owner/name".to_owned(),
            files: vec!["a.gguf".to_owned()],
            ..HuggingFaceSource::default()
        };
        let source = Source { hugging_face: Some(hub), ..Source::default() };
        check(Reason::SourceNotFound, &source, "spec.source.huggingFace owner/name/a.gguf at main: why");
    }
}
