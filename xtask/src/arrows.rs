//! The forbidden arrows: which crate must never reach which, directly or through others.
//!
//! Dependencies for tests count too. A rule that names a crate which neither exists nor is on
//! the list of crates to come is an error, for a misspelt rule would pass for ever.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;

use crate::metadata::{self, Metadata};

/// Crates of the design that do not exist yet. Whoever makes one takes its name off.
const TO_COME: &[&str] = &["feilun-corpus", "feilun-flywheel"];

/// One end of a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Crate(&'static str),
    /// Every other crate of this workspace.
    AnyOfOurs,
}

/// `(from, to)`: see "Rooms and arrows" in ARCHITECTURE.md for the reasons.
const FORBIDDEN: &[(End, End)] = &[
    (End::Crate("feilun-infer"), End::Crate("feilun-server")),
    (End::Crate("feilun-train"), End::Crate("feilun-server")),
    (End::Crate("feilun-eval"), End::Crate("feilun-server")),
    (End::Crate("feilun-eval"), End::Crate("feilun-store")),
    (End::Crate("feilun-store"), End::Crate("feilun-server")),
    (End::AnyOfOurs, End::Crate("feilun")),
    (End::Crate("feilun-model"), End::Crate("feilun-store")),
    (End::Crate("feilun-kernels"), End::AnyOfOurs),
];

/// Which of our crates depends on which of ours, directly.
type Graph = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn check() -> anyhow::Result<()> {
    let faults = faults(&our_graph(&metadata::load()?), TO_COME, FORBIDDEN);
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(())
}

fn our_graph(metadata: &Metadata) -> Graph {
    let ours: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .filter(|package| metadata.workspace_members.contains(&package.id))
        .map(|package| (package.id.as_str(), package.name.as_str()))
        .collect();
    let nodes = metadata.resolve.nodes.iter();
    nodes
        .filter_map(|node| {
            let from = ours.get(node.id.as_str())?;
            let targets = node.dependencies.iter().filter_map(|id| ours.get(id.as_str()));
            Some(((*from).to_owned(), targets.map(|&name| name.to_owned()).collect()))
        })
        .collect()
}

/// Every broken or misspelt rule, as a sentence.
fn faults(graph: &Graph, to_come: &[&str], forbidden: &[(End, End)]) -> Vec<String> {
    let mut faults = Vec::new();
    for name in to_come.iter().filter(|&&name| graph.contains_key(name)) {
        faults.push(format!("`{name}` exists now: take it off the list of crates to come"));
    }
    for &(from, to) in forbidden {
        for end in [from, to] {
            if let End::Crate(name) = end
                && !graph.contains_key(name)
                && !to_come.contains(&name)
            {
                faults.push(format!("a rule names `{name}`, which is no crate of this workspace"));
            }
        }
        for start in graph.keys().filter(|name| matches(from, name)) {
            for path in paths_to(graph, start, to) {
                faults.push(format!("forbidden arrow: {}", path.join(" -> ")));
            }
        }
    }
    faults
}

fn matches(end: End, name: &str) -> bool {
    match end {
        End::Crate(wanted) => wanted == name,
        End::AnyOfOurs => true,
    }
}

/// One path from `start` to each crate that `to` names, other than `start` itself.
fn paths_to(graph: &Graph, start: &str, to: End) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([start.to_owned()]);
    let mut open = vec![vec![start.to_owned()]];
    while let Some(path) = open.pop() {
        let last = path.last().map(String::as_str).unwrap_or_default();
        for next in graph.get(last).into_iter().flatten() {
            if seen.insert(next.clone()) {
                let mut longer = path.clone();
                longer.push(next.clone());
                if matches(to, next) {
                    found.push(longer.clone());
                }
                open.push(longer);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(arrows: &[(&str, &[&str])]) -> Graph {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        arrows.iter().map(|(from, to)| ((*from).to_owned(), set(to))).collect()
    }

    const RULES: &[(End, End)] = &[
        (End::Crate("model"), End::Crate("store")),
        (End::Crate("kernels"), End::AnyOfOurs),
        (End::AnyOfOurs, End::Crate("cli")),
    ];

    #[test]
    fn a_clean_graph_has_no_faults() {
        let graph = graph(&[("cli", &["model"]), ("model", &["kernels"]), ("kernels", &[])]);
        assert_eq!(faults(&graph, &["store"], RULES), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_through_another_crate_is_found() {
        let graph = graph(&[
            ("cli", &[]),
            ("model", &["files"]),
            ("files", &["store"]),
            ("store", &[]),
            ("kernels", &[]),
        ]);
        assert_eq!(faults(&graph, &[], RULES), ["forbidden arrow: model -> files -> store"]);
    }

    #[test]
    fn any_of_ours_stands_for_every_crate() {
        let graph =
            graph(&[("cli", &[]), ("model", &["cli"]), ("kernels", &["text"]), ("text", &[])]);
        assert_eq!(
            faults(&graph, &["store"], RULES),
            ["forbidden arrow: kernels -> text", "forbidden arrow: model -> cli"]
        );
    }

    #[test]
    fn a_misspelt_rule_is_refused() {
        let graph = graph(&[("cli", &[]), ("model", &[]), ("kernels", &[])]);
        assert_eq!(
            faults(&graph, &["stoer"], RULES),
            ["a rule names `store`, which is no crate of this workspace"]
        );
    }

    #[test]
    fn a_crate_that_came_leaves_the_list() {
        let graph = graph(&[("cli", &[]), ("model", &[]), ("kernels", &[]), ("store", &[])]);
        assert_eq!(
            faults(&graph, &["store"], RULES),
            ["`store` exists now: take it off the list of crates to come"]
        );
    }

    #[test]
    fn a_cycle_ends() {
        let graph = graph(&[("a", &["b"]), ("b", &["a"])]);
        assert_eq!(paths_to(&graph, "a", End::Crate("c")), Vec::<Vec<String>>::new());
    }
}
