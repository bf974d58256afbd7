//! What is wrong with a scenario, and where.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A scenario that cannot be run. The command ends with exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {key}: {what}")]
pub struct ScenarioError {
    /// The file as the user named it.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// The key that is wrong, or the table it stands in.
    pub key: String,
    /// What is wrong and what would be right.
    pub what: String,
}

/// Turns places in the text of a scenario into lines and keys.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub file: &'a str,
    pub text: &'a str,
}

impl Source<'_> {
    /// Line of byte `offset`, counted from 1.
    pub fn line(&self, offset: usize) -> usize {
        1 + self.text[..offset.min(self.text.len())].matches('\n').count()
    }

    /// An error about `key` at byte `offset`.
    pub fn error(&self, offset: usize, key: &str, what: impl Into<String>) -> ScenarioError {
        ScenarioError {
            file: self.file.to_owned(),
            line: self.line(offset),
            key: key.to_owned(),
            what: what.into(),
        }
    }

    /// What the TOML reader says, with the key that it speaks of.
    pub fn toml_error(&self, error: &toml::de::Error) -> ScenarioError {
        let span = error.span().unwrap_or(0..0);
        let what = error.message();
        match meant(what) {
            Some(name) => {
                self.error(span.start, &self.key_near(&span), format!("did you mean `{name}`? {what}"))
            }
            None => self.error(span.start, &self.key_near(&span), what),
        }
    }

    /// Where the key at the end of `path` stands, or the innermost table above it that is there. Names lead into tables,
    /// numbers into lists of tables: `["nvdimm", "0", "size"]`.
    pub fn place(&self, path: &[&str]) -> usize {
        let Ok(document) = DeTable::parse(self.text) else { return 0 };
        let (mut place, mut here) = (0, DeValue::Table(document.into_inner()));
        for name in path {
            let inner = match here {
                DeValue::Table(mut table) => {
                    table.remove_entry(*name).map(|(key, value)| (key.span().start, value.into_inner()))
                }
                DeValue::Array(list) => {
                    let mut entries = list.into_iter();
                    let entry = name.parse().ok().and_then(|number| entries.nth(number));
                    entry.map(|entry| (entry.span().start, entry.into_inner()))
                }
                _ => None,
            };
            let Some(inner) = inner else { break };
            (place, here) = inner;
        }
        place
    }

    /// Where `key` stands in the table that begins at byte `start`; `start` when it does not.
    pub fn find_key(&self, start: usize, key: &str) -> usize {
        let table = self.text.get(start..).unwrap_or("");
        let end = table.find("\n[").unwrap_or(table.len());
        let is_name =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_[".contains(byte));
        let mut places = table[..end].match_indices(key).map(|(at, _)| at);
        let place = places.find(|&at| {
            !is_name(table.as_bytes().get(at.wrapping_sub(1)))
                && !is_name(table.as_bytes().get(at + key.len()))
        });
        start + place.unwrap_or(0)
    }

    /// The key whose value (or which itself) stands at `span`.
    fn key_near(&self, span: &Range<usize>) -> String {
        let is_key =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
        let here = self.text.get(span.clone()).unwrap_or("");
        let after = self.text.get(span.end..).unwrap_or("").trim_start_matches([' ', '\t']);
        if is_key(here) && after.starts_with('=') {
            return here.to_owned();
        }
        let start = span.start.min(self.text.len());
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let before = &self.text[line_start..start];
        let assigned = before.rfind('=').map(|at| &before[..at]);
        let name = assigned
            .and_then(|left| left.trim_end().rsplit([' ', '{', ',', '\t']).next())
            .filter(|key| is_key(key));
        name.unwrap_or_else(|| self.text[line_start..line_end].trim()).to_owned()
    }
}

/// Of the names that serde says it expected, the one that was meant by the unknown one, if one is close.
fn meant(message: &str) -> Option<&str> {
    let unknown =
        message.strip_prefix("unknown field ").or_else(|| message.strip_prefix("unknown variant "))?;
    let mut names = unknown.split('`').skip(1).step_by(2);
    let wrong = names.next()?;
    let near = |name: &&str| strsim::damerau_levenshtein(wrong, name) <= wrong.len().div_ceil(3);
    names.filter(near).min_by_key(|name| strsim::damerau_levenshtein(wrong, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_close_is_suggested() {
        assert_eq!(meant("unknown field `sise`, expected one of `size`, `platform`"), Some("size"));
        assert_eq!(meant("unknown field `mkfs_args`, expected `size` or `mount`"), None);
        assert_eq!(meant("unknown variant `clbw`, expected one of `clflush`, `clwb`"), Some("clwb"));
        assert_eq!(meant("invalid type: integer `1`, expected a string"), None);
    }
}
