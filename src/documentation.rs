//! What the documentation says is true: its commands are ones that this program takes, its scenarios are read, its tests
//! exist, and every page is in the book.

use std::path::{Path, PathBuf};

use clap::Parser;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and everything in `docs/`.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(root().join("docs")).unwrap().flatten().map(|it| it.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "md"));
    paths.extend(["README.md", "CONTRIBUTING.md", "scenarios/README.md"].map(|name| root().join(name)));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Blocks of this language, each with the line where it begins.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<(usize, Vec<&'t str>)> {
    let mut found = Vec::new();
    let mut inside: Option<(usize, Vec<&str>)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut inside, line.trim().strip_prefix("```")) {
            (Some(_), Some(_)) => found.extend(inside.take().filter(|(_, block)| block[0] == language)),
            (Some((_, block)), None) => block.push(line),
            (None, Some(kind)) => inside = Some((number + 1, vec![kind])),
            (None, None) => (),
        }
    }
    found.into_iter().map(|(line, block)| (line, block[1..].to_vec())).collect()
}

/// Words as a shell splits them, as far as the documentation goes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ' ') => words.push(String::new()),
            (None, '#') if words.last().is_some_and(String::is_empty) => break,
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn its_commands_are_taken() {
    let mut tried = 0;
    for (path, text) in pages() {
        for (number, block) in blocks(&text, "sh") {
            for line in block.join("\n").replace("\\\n", " ").lines() {
                let line = line.trim().trim_start_matches("cargo run --release -- ");
                let ours = line.strip_prefix("pmemsim ").or_else(|| line.starts_with("run ").then_some(line));
                let Some(arguments) = ours else { continue };
                let arguments = arguments.split([';', '|', '>']).next().unwrap();
                let arguments = [vec!["pmemsim".to_owned()], words(arguments)].concat();
                let parsed = crate::Command::try_parse_from(&arguments);
                assert!(
                    parsed.is_ok(),
                    "{}:{number}: {arguments:?}: {}",
                    path.display(),
                    parsed.err().unwrap()
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 20, "only {tried} commands were found");
}

#[test]
fn its_scenarios_are_read() {
    let mut read = 0;
    for (path, text) in pages() {
        for (number, block) in blocks(&text, "toml") {
            let text = block.join("\n");
            if text.contains("[machine]") {
                let name = format!("{}:{number}", path.display());
                explore::Scenario::parse(&text, &name).unwrap_or_else(|why| panic!("{why}"));
                read += 1;
            }
        }
    }
    assert!(read > 0);
}

#[test]
fn every_page_is_in_the_book() {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let missing = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        path.starts_with(root().join("docs"))
            && name != "SUMMARY.md"
            && !summary.contains(&format!("({name})"))
    };
    let all: Vec<PathBuf> = pages().into_iter().map(|(path, _)| path).collect();
    let missing: Vec<&PathBuf> = all.iter().filter(missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn links_between_pages_lead_somewhere() {
    for (path, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.starts_with("http") || file.contains(' ') {
                continue;
            }
            assert!(path.parent().unwrap().join(file).exists(), "{}: {link}", path.display());
        }
    }
}

#[test]
fn every_promise_of_the_specification_has_its_test() {
    let text = std::fs::read_to_string(root().join("SPECIFICATION.md")).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| S"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for (number, row) in (1..).zip(&rows) {
        assert_eq!(row[0], format!("S{number}"), "promises are numbered");
        let tests: Vec<&str> = row[2].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{row:?} names no test");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test}: write FILE::NAME"));
            let source =
                std::fs::read_to_string(root().join(file)).unwrap_or_else(|why| panic!("{file}: {why}"));
            assert!(source.contains(&format!("fn {name}(")), "{test} is not there");
        }
    }
    assert!(rows.len() > 10);
}

#[test]
fn the_wrapper_for_git_bisect_gives_the_codes_that_git_wants() {
    let directory = tempfile::tempdir().unwrap();
    let scenario = directory.path().join("s.toml");
    std::fs::write(&scenario, "").unwrap();
    for (ours, wanted) in [(0, 0), (1, 1), (2, 128), (3, 125)] {
        // Stands for pmemsim: what it says is its exit code.
        let status = std::process::Command::new("sh")
            .arg(root().join("docs/ci/bisect.sh"))
            .arg(&scenario)
            .env("BISECT_KERNEL", "/no/kernel")
            .env("PMEMSIM", script(directory.path(), ours))
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(wanted), "of {ours}");
    }
}

/// A program that takes what the wrapper gives and ends with this code.
fn script(directory: &Path, code: i32) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join(format!("pmemsim-{code}"));
    let text = format!("#!/bin/sh\n[ \"$1 $3 $4\" = 'run --kernel /no/kernel' ] || exit 99\nexit {code}\n");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}
