//! The reference of scenarios in `docs/`, made from the types that read them: tables, keys, types, defaults, and what their
//! comments say.

use std::fmt::Write;

use syn::{Attribute, Expr, Field, Fields, Item, Lit, Meta, Type};

const HEAD: &str = "# Scenario reference

Made from the types that read scenarios: every table and every key, as this version of the program reads them. Unknown keys are errors.
`scenarios/README.md` says what they mean together, with examples.

Numbers of bytes (`Bytes`) are integers or text: `4096`, `\"0x1000\"`, `\"4K\"`, `\"64M\"`, `\"1G\"`.
";

/// What a doc comment says.
fn said(attributes: &[Attribute]) -> String {
    let line = |attribute: &Attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    attributes.iter().filter_map(line).collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// A word that serde's attributes give: `rename`, `rename_all`.
fn serde_word(attributes: &[Attribute], wanted: &str) -> Option<String> {
    let mut found = None;
    for attribute in attributes.iter().filter(|it| it.path().is_ident("serde")) {
        let _ = attribute.parse_nested_meta(|meta| {
            if let Ok(value) = meta.value()
                && let Ok(Lit::Str(text)) = value.parse()
                && meta.path.is_ident(wanted)
            {
                found = Some(text.value());
            }
            Ok(())
        });
    }
    found
}

fn has_default(field: &Field) -> bool {
    let is_it = |attribute: &Attribute| {
        let mut found = false;
        let _ = attribute.parse_nested_meta(|meta| {
            found |= meta.path.is_ident("default");
            let _ = meta.value().and_then(|value| value.parse::<Lit>());
            Ok(())
        });
        found
    };
    field.attrs.iter().any(|it| it.path().is_ident("serde") && is_it(it))
}

/// A type in words, and whether the key may be absent.
fn type_of(kind: &Type) -> (String, bool) {
    let Type::Path(path) = kind else { return ("?".to_owned(), false) };
    let Some(last) = path.path.segments.last() else { return ("?".to_owned(), false) };
    let inner = match &last.arguments {
        syn::PathArguments::AngleBracketed(list) => match list.args.first() {
            Some(syn::GenericArgument::Type(kind)) => Some(type_of(kind).0),
            _ => None,
        },
        _ => None,
    };
    match (last.ident.to_string().as_str(), inner) {
        ("Option", Some(inner)) => (inner, true),
        ("Spanned", Some(inner)) => (inner, false),
        ("Vec", Some(inner)) => (format!("list of {inner}"), false),
        ("String", _) => ("text".to_owned(), false),
        ("bool", _) => ("true or false".to_owned(), false),
        ("u8" | "u16" | "u32" | "u64", _) => ("number".to_owned(), false),
        (name, _) => (format!("`{}`", name.trim_start_matches("Raw")), false),
    }
}

/// `KeepSize` as `keep-size`.
fn variant_name(name: &str, rule: Option<&str>) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(c.to_lowercase());
    }
    match rule {
        Some("UPPERCASE") => name.to_uppercase(),
        Some("lowercase") => name.to_lowercase(),
        _ => text,
    }
}

fn describe(text: &mut String, item: &Item) {
    match item {
        Item::Struct(item) => {
            let Fields::Named(fields) = &item.fields else { return };
            let name = item.ident.to_string();
            let _ = writeln!(text, "\n## {}\n\n{}\n", name.trim_start_matches("Raw"), said(&item.attrs));
            text.push_str("| key | type | | |\n|---|---|---|---|\n");
            for field in &fields.named {
                let key = field.ident.as_ref().expect("named").to_string();
                let key = serde_word(&field.attrs, "rename").unwrap_or(key);
                let (kind, optional) = type_of(&field.ty);
                let may = if optional || has_default(field) { "optional" } else { "" };
                let _ = writeln!(text, "| `{key}` | {kind} | {may} | {} |", said(&field.attrs));
            }
        }
        Item::Enum(item) => {
            let rule = serde_word(&item.attrs, "rename_all");
            let _ = writeln!(
                text,
                "\n## {}\n\n{}\n",
                item.ident.to_string().trim_start_matches("Raw"),
                said(&item.attrs)
            );
            text.push_str("| value | |\n|---|---|\n");
            for variant in &item.variants {
                let name = variant_name(&variant.ident.to_string(), rule.as_deref());
                let _ = writeln!(text, "| `{name}` | {} |", said(&variant.attrs));
            }
        }
        _ => (),
    }
}

fn is_read(item: &Item) -> bool {
    let (Item::Struct(syn::ItemStruct { attrs, .. }) | Item::Enum(syn::ItemEnum { attrs, .. })) = item else {
        return false;
    };
    let derives = |attribute: &Attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("derive") && list.tokens.to_string().contains("Deserialize"),
        _ => false,
    };
    attrs.iter().any(derives)
}

fn reference() -> String {
    let mut text = HEAD.to_owned();
    for source in [
        include_str!("schema.rs"),
        include_str!("step_schema.rs"),
        include_str!("regions.rs"),
        include_str!("platforms.rs"),
        include_str!("mutants.rs"),
    ] {
        let file = syn::parse_file(source).expect("this compiles");
        file.items.iter().filter(|item| is_read(item)).for_each(|item| describe(&mut text, item));
    }
    text
}

#[test]
fn the_reference_in_the_documentation_is_that_of_the_types() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/scenario-reference.md");
    let (written, wanted) = (std::fs::read_to_string(path).unwrap_or_default(), reference());
    if std::env::var_os("PMEMSIM_WRITE_DOCS").is_some() {
        std::fs::write(path, &wanted).unwrap();
        return;
    }
    assert_eq!(written, wanted, "write it anew: run this test with PMEMSIM_WRITE_DOCS=1");
}
