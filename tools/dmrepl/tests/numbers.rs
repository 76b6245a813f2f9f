// SPDX-License-Identifier: GPL-2.0

//! The module writes its reasons as a Rust enum of its own, the tool takes the names from the uapi
//! header: a variant out of place would give every reason after it a wrong name.

const MODULE: &str = include_str!("../../../rust/reason.rs");
const HEADER: &str = include_str!("../../../include/uapi/linux/dm_replicate.h");

/// The names in the braces after `head`, each up to its comma.
fn entries<'a>(text: &'a str, head: &str) -> Vec<&'a str> {
    let body = text
        .split_once(head)
        .expect(head)
        .1
        .split_once('{')
        .expect("a body")
        .1;
    let body = body.split_once('}').expect("an end").0;
    let lines = body
        .lines()
        .map(str::trim)
        .filter(|l| l.starts_with(|c: char| c.is_ascii_uppercase()));
    lines
        .map(|l| l.split([',', ' ', '=']).next().unwrap_or(l))
        .collect()
}

fn kebab(camel: &str) -> String {
    let mut out = String::new();
    for c in camel.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[test]
fn reasons_have_one_number() {
    let module: Vec<String> = entries(MODULE, "enum Reason")
        .into_iter()
        .map(kebab)
        .collect();
    let prefix = "DM_REPLICATE_REASON_";
    let header = entries(HEADER, "enum dm_replicate_reason");
    let header: Vec<String> = header
        .into_iter()
        .map(|e| {
            e.strip_prefix(prefix)
                .expect(prefix)
                .to_lowercase()
                .replace('_', "-")
        })
        .collect();
    assert!(header.len() > 20, "{header:?}");
    assert_eq!(module, header);
}
