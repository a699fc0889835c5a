//! The dependency check: licences, banned crates and sources, by the rules of `deny.toml`.
//!
//! It reads `cargo metadata` and needs no network. Where cargo-deny is installed it runs too,
//! over the same file: it knows more (unused rules, clarified licences).

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::metadata::{self, Package};
use crate::{cargo, run, say};

/// Whether a source in `cargo metadata` is crates.io.
fn is_crates_io(source: &str) -> bool {
    source.starts_with("registry+") && source.ends_with("/crates.io-index")
}

/// The part of `deny.toml` that we enforce ourselves; cargo-deny checks the rest of its keys.
#[derive(Deserialize)]
struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    /// Only a second version is banned, not the crate.
    #[serde(default)]
    deny_multiple_versions: bool,
    reason: String,
}

pub(crate) fn check() -> anyhow::Result<()> {
    let path = metadata::workspace_root().join("deny.toml");
    let text = std::fs::read_to_string(&path).context("cannot read deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("cannot read deny.toml")?;
    let faults = faults(&metadata::load()?.packages, &rules)?;
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    let mut version = cargo(&["deny", "--version"]);
    let installed = version.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if installed.is_ok_and(|status| status.success()) {
        run(&mut cargo(&["deny", "check", "licenses", "bans", "sources"]))?;
    } else {
        say("   (cargo-deny is not installed: our own check of deny.toml stands alone)");
    }
    Ok(())
}

fn faults(packages: &[Package], rules: &Rules) -> anyhow::Result<Vec<String>> {
    let allowed = rules
        .licenses
        .allow
        .iter()
        .map(|name| {
            spdx::Licensee::parse(name).with_context(|| format!("deny.toml allows `{name}`"))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut faults = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(&package.version);
        let what = format!("{} {}", package.name, package.version);
        if let Some(source) = package.source.as_deref().filter(|&name| !is_crates_io(name)) {
            faults.push(format!("{what}: comes from `{source}`, not from crates.io"));
        }
        if let Err(fault) = licence_is_allowed(package.license.as_deref(), &allowed) {
            faults.push(format!("{what}: {fault}"));
        }
    }
    for ban in &rules.bans.deny {
        let found = versions.get(ban.name.as_str()).map_or(&[][..], Vec::as_slice);
        if found.len() > usize::from(ban.deny_multiple_versions) {
            faults.push(format!("{} {} is banned: {}", ban.name, found.join(", "), ban.reason));
        }
    }
    Ok(faults)
}

fn licence_is_allowed(licence: Option<&str>, allowed: &[spdx::Licensee]) -> Result<(), String> {
    let text = licence.ok_or("names no licence")?;
    let expression = spdx::Expression::parse_mode(text, spdx::ParseMode::LAX)
        .map_err(|error| format!("licence `{text}` cannot be read: {}", error.reason))?;
    if expression.evaluate(|wanted| allowed.iter().any(|licence| licence.satisfies(wanted))) {
        return Ok(());
    }
    Err(format!("licence `{text}` is not on the list in deny.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0 WITH LLVM-exception"]
        [bans]
        deny = [
            { crate = "openssl-sys", reason = "rustls" },
            { crate = "half", deny-multiple-versions = true, reason = "one" },
        ]
    "#;

    fn package(name: &str, version: &str, license: &str) -> Package {
        Package {
            id: format!("{name}@{version}"),
            name: name.to_owned(),
            version: version.to_owned(),
            license: Some(license.to_owned()),
            source: Some("registry+https://example.org/crates.io-index".to_owned()),
        }
    }

    fn check(packages: &[Package]) -> Vec<String> {
        faults(packages, &toml::from_str(RULES).unwrap()).unwrap()
    }

    #[test]
    fn a_choice_of_licences_needs_one_that_is_allowed() {
        assert_eq!(check(&[package("a", "1.0.0", "MIT OR GPL-3.0-only")]), Vec::<String>::new());
        assert_eq!(check(&[package("a", "1.0.0", "GPL-3.0-only/MIT")]), Vec::<String>::new());
        assert_eq!(
            check(&[package("a", "1.0.0", "MIT AND GPL-3.0-only")]),
            ["a 1.0.0: licence `MIT AND GPL-3.0-only` is not on the list in deny.toml"]
        );
    }

    #[test]
    fn an_exception_is_not_the_bare_licence() {
        let with = "Apache-2.0 WITH LLVM-exception";
        assert_eq!(check(&[package("a", "1.0.0", with)]), Vec::<String>::new());
        assert_eq!(check(&[package("a", "1.0.0", "Apache-2.0")]).len(), 1);
    }

    #[test]
    fn no_licence_and_no_crates_io_are_faults() {
        let mut stray = package("a", "1.0.0", "MIT");
        stray.license = None;
        stray.source = Some("git+https://example.org/a".to_owned());
        assert_eq!(
            check(&[stray]),
            [
                "a 1.0.0: comes from `git+https://example.org/a`, not from crates.io",
                "a 1.0.0: names no licence"
            ]
        );
    }

    #[test]
    fn bans_of_a_crate_and_of_its_second_version() {
        let one = package("half", "2.0.0", "MIT");
        assert_eq!(check(&[one]), Vec::<String>::new());
        let packages = [
            package("half", "1.0.0", "MIT"),
            package("half", "2.0.0", "MIT"),
            package("openssl-sys", "0.9.0", "MIT"),
        ];
        assert_eq!(
            check(&packages),
            ["openssl-sys 0.9.0 is banned: rustls", "half 1.0.0, 2.0.0 is banned: one"]
        );
    }
}
