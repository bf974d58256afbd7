//! Reports as one page for a browser: it needs no network and no other file.

use crate::report::Report;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPTS: [&str; 6] = [
    include_str!("dom.js"),
    include_str!("bytes.js"),
    include_str!("timeline.js"),
    include_str!("findings.js"),
    include_str!("coverage.js"),
    include_str!("main.js"),
];

/// The page of some reports, the first of them shown first. It links to `report.json` beside it.
pub fn page(reports: &[Report]) -> String {
    let title = match reports {
        [report] => format!("{} - pmemsim", report.scenario),
        several => format!("{} runs - pmemsim", several.len()),
    };
    let data = serde_json::to_string(reports).expect("a report has only text, numbers and lists");
    // The guest is not trusted: nothing that it says may end the element, or be markup.
    let data = data.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    // What was put in is not looked through again.
    let parts = [
        ("@TITLE@", escape(&title)),
        ("@STYLE@", STYLE.to_owned()),
        ("@DATA@", data),
        ("@SCRIPT@", SCRIPTS.join("\n")),
    ];
    let mut page = String::new();
    let mut rest = PAGE;
    for (place, text) in parts {
        let (before, behind) = rest.split_once(place).expect("the page has every place once, in this order");
        page.push_str(before);
        page.push_str(&text);
        rest = behind;
    }
    page + rest
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_no_markup() {
        let mut report = crate::tests::a_report();
        report.scenario = "</title><script>1</script>".to_owned();
        report.canary = "</script><script>@SCRIPT@".to_owned();
        let page = page(&[report]);
        assert_eq!(page.matches("<script").count(), 2);
        assert_eq!(page.matches("</script>").count(), 2);
        assert!(page.contains("&lt;/title&gt;") && page.contains("\\u003cscript>@SCRIPT@"));
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page(&[crate::tests::a_report()]);
        for word in ["http://", "https://", "src=\"", "@import", "url("] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
