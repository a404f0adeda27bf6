//! Diagnostics for a terminal: the lines concerned, with carets under the place.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use anyvip_core::config::{Diagnostic, Severity, Source};

/// All diagnostics, one after the other, each with its place, other places and remedy. `sources` are those that were
/// read; a diagnostic whose source is not among them is written as one line.
pub(crate) fn render(diagnostics: &[Diagnostic], sources: &[Source], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let mut text = String::new();
    for diagnostic in diagnostics {
        match group(diagnostic, sources) {
            Some(group) => text.push_str(&renderer.render(&[group])),
            None => text.push_str(&diagnostic.to_string()),
        }
        text.push_str("\n\n");
    }
    text
}

fn group<'a>(diagnostic: &'a Diagnostic, sources: &'a [Source]) -> Option<Group<'a>> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = if diagnostic.key.is_empty() {
        diagnostic.message.clone()
    } else {
        format!("{}: {}", diagnostic.key, diagnostic.message)
    };
    let source = sources.get(diagnostic.source)?;
    source.text.get(diagnostic.span.clone())?;
    let mut main = Snippet::source(source.text.as_str())
        .path(source.name.as_str())
        .annotation(AnnotationKind::Primary.span(diagnostic.span.clone()));
    let mut others = Vec::new();
    for related in &diagnostic.related {
        let Some(other) =
            sources.get(related.source).filter(|other| other.text.get(related.span.clone()).is_some())
        else {
            continue;
        };
        let annotation = AnnotationKind::Context.span(related.span.clone()).label(related.text.as_str());
        if related.source == diagnostic.source {
            main = main.annotation(annotation);
        } else {
            others
                .push(Snippet::source(other.text.as_str()).path(other.name.as_str()).annotation(annotation));
        }
    }
    let mut group = level.primary_title(title).element(main).elements(others);
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    Some(group)
}

#[cfg(test)]
mod tests {
    use anyvip_core::config::{HostFacts, load};

    use super::*;

    fn source(name: &str, text: &str) -> Source {
        Source { name: name.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_caret_stands_under_the_place_and_other_files_are_shown() {
        let sources = [
            source("a.toml", "[bgp]\nasn = 65011\n[bgp.peer.tor1]\naddress = \"10.0.1.1\"\nasn = 0\n"),
            source("b.toml", "[bgp]\nasn = 65012\n"),
        ];
        let found = load(&sources, &HostFacts::default()).unwrap_err();
        let text = render(&found, &sources, false);
        let expected = [
            "error: bgp.peer.tor1.asn: AS number 0 is reserved (RFC 7607)",
            " --> a.toml:5:7",
            "5 | asn = 0",
            "  |       ^",
            "= help: write the AS number of this end",
            "error: bgp.asn: set twice",
            " --> b.toml:2:1",
            "::: a.toml:2:1",
            "--- first",
        ];
        for expected in expected {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert!(render(&found, &sources, true).contains('\u{1b}'));
        // Without the texts there are still the lines.
        assert!(render(&found, &[], false).contains("b.toml:2:1: bgp.asn: set twice (first at a.toml:2:1)"));
    }

    #[test]
    fn a_place_at_the_end_of_the_file_or_in_an_empty_one_is_shown() {
        for text in ["", "\n", "a = ", "[bgp", "x = \"é"] {
            let sources = [source("a.toml", text)];
            let found = load(&sources, &HostFacts::default()).unwrap_err();
            assert!(render(&found, &sources, false).contains("error: "), "{text:?}");
        }
    }
}
