//! Checks that the rules have the same numbers, titles and order in the code, in docs/concepts/deciding.md and in the
//! stories.

use std::collections::BTreeSet;

use super::*;

const DOCUMENT: &str = include_str!("../../../../docs/concepts/deciding.md");
const SOURCES: [&str; 3] = [
    include_str!("../inputs.rs"),
    include_str!("../by_lock.rs"),
    include_str!("../by_reports.rs"),
];

fn titles() -> Vec<String> {
    let titles = RULES.iter().map(|(title, _)| *title).chain([LAST_RULE]);
    (1..)
        .zip(titles)
        .map(|(number, title)| format!("{number}. {title}"))
        .collect()
}

/// Returns the titles of the lines `N. **Title**…` in the document.
fn titles_in_the_document() -> Vec<String> {
    let rules = DOCUMENT.lines().filter_map(|line| line.split_once(". **"));
    let numbered = rules.filter(|(number, _)| number.parse::<usize>().is_ok());
    numbered
        .filter_map(|(number, rest)| Some(format!("{number}. {}", rest.split_once("**")?.0)))
        .collect()
}

#[test]
fn the_document_lists_the_rules_of_the_code_in_their_order() {
    assert_eq!(titles_in_the_document(), titles());
}

#[test]
fn each_rule_is_a_function_whose_comment_begins_with_its_number() {
    let comments = SOURCES.iter().flat_map(|source| source.lines());
    let numbers = comments.filter_map(|line| line.trim().strip_prefix("/// Rule ")?.split_once(':')?.0.parse().ok());
    let numbers: Vec<usize> = numbers.collect();
    assert_eq!(numbers, (1..=RULES.len() + 1).collect::<Vec<_>>());
}

#[test]
fn each_rule_decides_in_a_story() {
    let stories = stories::rows().into_iter().map(|(_, _, story)| story());
    let applied: BTreeSet<_> = stories.flat_map(|story| story.rules).collect();
    let missing: Vec<_> = (1..=RULES.len() + 1).filter(|rule| !applied.contains(rule)).collect();
    assert!(missing.is_empty(), "no story applies the rules {missing:?}");
}
