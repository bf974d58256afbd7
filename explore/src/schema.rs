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
        let empty = Map::new();
        let form = match form {
            Value::Bool(true) => return None,
            Value::Object(form) => form,
            _ => return Some(format!("{place}: nothing may be here")),
        };
        let properties = form.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        for (word, rule) in form {
            let wrong = match word.as_str() {
                "$schema" | "title" | "description" | "format" | "default" | "$defs" | "properties" => None,
                "$ref" => {
                    let path = rule.as_str()?.trim_start_matches('#');
                    mismatch(root, root.pointer(path).unwrap_or_else(|| panic!("no {path}")), value, place)
                }
                "type" => (!is_of_type(rule, value)).then(|| format!("{place}: {value} is no {rule}")),
                "const" => (rule != value).then(|| format!("{place}: {value} is not {rule}")),
                "enum" => {
                    (!rule.as_array()?.contains(value)).then(|| format!("{place}: {value} is none of {rule}"))
                }
                "minimum" => {
                    (value.as_f64()? < rule.as_f64()?).then(|| format!("{place}: {value} is too small"))
                }
                "maximum" => {
                    (value.as_f64()? > rule.as_f64()?).then(|| format!("{place}: {value} is too large"))
                }
                "minItems" => {
                    (value.as_array()?.len() < rule.as_u64()? as usize).then(|| format!("{place}: too short"))
                }
                "maxItems" => {
                    (value.as_array()?.len() > rule.as_u64()? as usize).then(|| format!("{place}: too long"))
                }
                "anyOf" | "oneOf" => {
                    let all: Vec<Option<String>> =
                        rule.as_array()?.iter().map(|form| mismatch(root, form, value, place)).collect();
                    all.iter().all(Option::is_some).then(|| format!("{place}: {all:?}"))
                }
                "required" => {
                    let missing =
                        rule.as_array()?.iter().find(|name| value.get(name.as_str().unwrap()).is_none());
                    missing.map(|name| format!("{place}: {name} is missing"))
                }
                "additionalProperties" => {
                    value.as_object()?.iter().find_map(|(name, inner)| match properties.get(name) {
                        Some(form) => mismatch(root, form, inner, &format!("{place}/{name}")),
                        None => mismatch(root, rule, inner, &format!("{place}/{name}")),
                    })
                }
                "items" => value
                    .as_array()?
                    .iter()
                    .find_map(|inner| mismatch(root, rule, inner, &format!("{place}[]"))),
                "prefixItems" => {
                    let pairs = rule.as_array()?.iter().zip(value.as_array()?);
                    pairs
                        .into_iter()
                        .find_map(|(form, inner)| mismatch(root, form, inner, &format!("{place}[]")))
                }
                other => panic!("{place}: the test does not know {other}"),
            };
            if wrong.is_some() {
                return wrong;
            }
        }
        None
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
