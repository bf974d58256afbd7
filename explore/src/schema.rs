//! The form of JSON reports, as JSON Schema: made from the types, so that it is never another one than that of what is
//! written.

use schemars::JsonSchema;

use crate::report::Report;

/// The form of reports, as JSON Schema: of one, or of a list, as they are written of several scenarios. With a newline at
/// its end.
pub fn schema() -> String {
    #[derive(JsonSchema)]
    #[serde(untagged)]
    #[allow(dead_code)] // Only its form is wanted.
    /// What `pmemsim run --json` writes.
    enum File {
        One(Box<Report>),
        Several(Vec<Report>),
    }
    let mut text =
        serde_json::to_string_pretty(&schemars::schema_for!(File)).expect("a schema has only text and lists");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::tests::a_report;

    /// Why a value is not of a form; knows what schemars uses, and refuses the rest.
    fn mismatch(root: &Value, form: &Value, value: &Value, place: &str) -> Option<String> {
        match form {
            Value::Bool(true) => None,
            Value::Object(form) => {
                form.iter().find_map(|(word, rule)| breaks(root, form, (word.as_str(), rule), value, place))
            }
            _ => Some(format!("{place}: nothing may be here")),
        }
    }

    /// Why a value breaks one rule of a form. A rule about another type says nothing.
    fn breaks(
        root: &Value,
        form: &Map<String, Value>,
        (word, rule): (&str, &Value),
        value: &Value,
        place: &str,
    ) -> Option<String> {
        let wrong = |is_wrong: bool| is_wrong.then(|| format!("{place}: {value}: {word} is {rule}"));
        let list = || rule.as_array().expect("a list");
        match word {
            "$schema" | "title" | "description" | "format" | "default" | "$defs" => None,
            "$ref" => {
                let path = rule.as_str().expect("text").trim_start_matches('#');
                mismatch(root, root.pointer(path).unwrap_or_else(|| panic!("no {path}")), value, place)
            }
            "type" => wrong(!is_of_type(rule, value)),
            "const" => wrong(rule != value),
            "enum" => wrong(!list().contains(value)),
            "minimum" => wrong(value.as_f64() < rule.as_f64() && value.is_number()),
            "maximum" => wrong(value.as_f64() > rule.as_f64() && value.is_number()),
            "minItems" => {
                wrong(value.as_array().is_some_and(|it| (it.len() as u64) < rule.as_u64().unwrap()))
            }
            "maxItems" => wrong(value.as_array().is_some_and(|it| it.len() as u64 > rule.as_u64().unwrap())),
            "anyOf" | "oneOf" => {
                let all: Vec<Option<String>> =
                    list().iter().map(|form| mismatch(root, form, value, place)).collect();
                all.iter().all(Option::is_some).then(|| format!("{place}: {all:?}"))
            }
            "required" => {
                let is_missing = |name: &&Value| value.get(name.as_str().expect("text")).is_none();
                wrong(value.is_object() && list().iter().any(|name| is_missing(&name)))
            }
            "properties" => {
                rule.as_object().into_iter().flatten().find_map(|(name, form)| {
                    mismatch(root, form, value.get(name)?, &format!("{place}/{name}"))
                })
            }
            "additionalProperties" => value.as_object().into_iter().flatten().find_map(|(name, inner)| {
                let is_named = form.get("properties").is_some_and(|named| named.get(name).is_some());
                if is_named { None } else { mismatch(root, rule, inner, &format!("{place}/{name}")) }
            }),
            "items" => {
                let inside = value.as_array().into_iter().flatten();
                inside.into_iter().find_map(|inner| mismatch(root, rule, inner, &format!("{place}[]")))
            }
            "prefixItems" => {
                let pairs = list().iter().zip(value.as_array().into_iter().flatten());
                pairs.into_iter().find_map(|(form, inner)| mismatch(root, form, inner, &format!("{place}[]")))
            }
            other => panic!("{place}: the test does not know {other}"),
        }
    }

    fn is_of_type(rule: &Value, value: &Value) -> bool {
        match rule.as_str() {
            None => rule.as_array().unwrap().iter().any(|one| is_of_type(one, value)),
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("null") => value.is_null(),
            Some("integer") => value.is_u64() || value.is_i64(),
            Some("number") => value.is_number(),
            Some(other) => panic!("no type {other}"),
        }
    }

    fn validate(report: &Value) -> Option<String> {
        let schema: Value = serde_json::from_str(&schema()).unwrap();
        mismatch(&schema, &schema, report, "")
    }

    #[test]
    fn reports_have_the_form_that_is_told() {
        let report: Value = serde_json::from_str(&a_report().to_json()).unwrap();
        assert_eq!(validate(&report), None);
        assert_eq!(validate(&json!([report, report])), None);
    }

    #[test]
    fn what_is_no_report_does_not_have_it() {
        let report: Value = serde_json::from_str(&a_report().to_json()).unwrap();
        for (key, value) in [("verdict", json!("fine")), ("unknown", json!(1)), ("counts", json!({}))] {
            let mut wrong = report.clone();
            wrong[key] = value;
            assert!(validate(&wrong).is_some(), "{key}");
        }
        let mut wrong = report.clone();
        wrong["findings"][0]["smallest"].as_object_mut().unwrap().remove("lost");
        assert!(validate(&wrong).is_some());
    }

    #[test]
    fn the_schema_in_the_documentation_is_that_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/report.schema.json");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        if std::env::var_os("PMEMSIM_WRITE_DOCS").is_some() {
            std::fs::write(path, schema()).unwrap();
            return;
        }
        assert_eq!(written, schema(), "write it anew: run this test with PMEMSIM_WRITE_DOCS=1");
    }
}
