//! What is in the binary, as CycloneDX 1.5: every crate that is compiled into the program or the
//! probes, or that runs while they are built.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Release, sha256};
use crate::{build::cargo, process::capture};

/// What the binary is made from: the program, and the probes in it.
const ROOTS: [&str; 2] = ["tcpmon", "tcpmon-ebpf"];

pub(super) fn make(release: &Release) -> Result<()> {
    let mut command = cargo();
    command.args(["metadata", "--format-version=1", "--locked", "--filter-platform"]);
    command.arg(format!("{}-unknown-linux-gnu", Release::machine()));
    command.args(["--filter-platform", "bpfel-unknown-none"]);
    let metadata: Value = serde_json::from_str(&capture(&mut command)?)?;
    let binary = fs::read(&release.binary)?;
    let mut bom = bom(&metadata).context("cargo metadata tells less than expected")?;
    bom["metadata"]["component"]["hashes"] =
        json!([{ "alg": "SHA-256", "content": sha256(&binary) }]);
    let name = format!("tcpmon-{}.cdx.json", release.version);
    fs::write(release.out.join(name), serde_json::to_string_pretty(&bom)? + "\n")?;
    Ok(())
}

fn bom(metadata: &Value) -> Option<Value> {
    let packages: BTreeMap<&str, &Value> = metadata["packages"]
        .as_array()?
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()?
        .iter()
        .filter_map(|node| Some((node["id"].as_str()?, node)))
        .collect();
    let is_root = |package: &Value| ROOTS.iter().any(|name| package["name"] == *name);
    let roots = packages.iter().filter(|(_, package)| is_root(package)).map(|(id, _)| *id);
    let mut wanted: Vec<&str> = roots.collect();
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    while let Some(id) = wanted.pop() {
        if found.contains_key(id) {
            continue;
        }
        let needs: BTreeSet<&str> = nodes.get(id).map(|node| needed(node)).unwrap_or_default();
        wanted.extend(&needs);
        found.insert(id, needs);
    }
    let reference = |id: &str| packages.get(id).map(|package| purl(package));
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    let mut root = None;
    for (id, needs) in &found {
        let package = packages.get(id)?;
        let component = component(package);
        if package["name"] == "tcpmon" {
            root = Some(component);
        } else {
            components.push(component);
        }
        let needs: Vec<_> = needs.iter().filter_map(|need| reference(need)).collect();
        dependencies.push(json!({ "ref": purl(package), "dependsOn": needs }));
    }
    Some(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": root?, "tools": [{ "name": "cargo xtask dist" }] },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// The packages that a node needs for anything but its tests.
fn needed(node: &Value) -> BTreeSet<&str> {
    let kinds = |dependency: &Value| {
        let kinds = dependency["dep_kinds"].as_array();
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"] != "dev"))
    };
    let all = node["deps"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|one| kinds(one)).filter_map(|one| one["pkg"].as_str()).collect()
}

fn purl(package: &Value) -> String {
    let word = |key: &str| package[key].as_str().unwrap_or_default();
    format!("pkg:cargo/{}@{}", word("name"), word("version"))
}

fn component(package: &Value) -> Value {
    let program = package["name"] == "tcpmon";
    let mut component = json!({
        "type": if program { "application" } else { "library" },
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    });
    if let Some(licence) = package["license"].as_str() {
        // Old crates write a slash for OR.
        component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
    }
    if let Some(place) = package["repository"].as_str() {
        component["externalReferences"] = json!([{ "type": "vcs", "url": place }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_tests_need_is_not_in_the_binary() {
        let node = |id: &str, needs: &[(&str, &str)]| {
            let kind = |kind: &str| if kind.is_empty() { Value::Null } else { kind.into() };
            let needs = needs
                .iter()
                .map(|(id, dep)| json!({ "pkg": id, "dep_kinds": [{ "kind": kind(dep) }] }));
            json!({ "id": id, "deps": needs.collect::<Vec<_>>() })
        };
        let package = |name: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0" });
        let names = ["tcpmon", "tcpmon-ebpf", "used", "deep", "tested", "built", "xtask"];
        let metadata = json!({
            "packages": names.map(package),
            "resolve": { "nodes": [
                node("tcpmon", &[("used", ""), ("tested", "dev"), ("built", "build")]),
                node("tcpmon-ebpf", &[("used", "")]),
                node("used", &[("deep", "")]),
                node("deep", &[]), node("tested", &[]), node("built", &[]), node("xtask", &[]),
            ]},
        });
        let bom = bom(&metadata).expect("a list");
        let components = bom["components"].as_array().expect("components");
        let found: Vec<_> = components.iter().filter_map(|one| one["name"].as_str()).collect();
        assert_eq!(found, ["built", "deep", "tcpmon-ebpf", "used"]);
        assert_eq!(bom["metadata"]["component"]["purl"], "pkg:cargo/tcpmon@1.0.0");
        assert_eq!(components[1]["licenses"][0]["expression"], "MIT OR Apache-2.0");
    }
}
