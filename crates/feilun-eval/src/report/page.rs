//! The page around a card: one file that fetches nothing and runs nothing.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Language;

/// Nothing may be fetched or run, whatever a name contains: the browser holds the page to it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'";

const STYLE: &str = "
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { border-left: .4rem solid; padding: .5rem 1rem; background: #f5f5f5; }
.promote, .held, .better { border-color: #00734f; }
.reject, .worse, .too-small, .broken { border-color: #b34700; }
.open { border-color: #0060a8; }
figure { margin: 1rem 0 1.5rem; padding-left: .8rem; border-left: .25rem solid; }
figcaption { margin-bottom: .25rem; }
svg { width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: right; padding: .3rem .5rem; border-bottom: 1px solid #ccc; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
.small { font-size: .85rem; color: #444; }
";

/// A whole page.
pub(super) fn page(language: Language, title: &str, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang=(language.tag()) {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    }
    .into_string()
}
