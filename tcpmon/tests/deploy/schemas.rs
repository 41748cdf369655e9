//! Kubernetes' own schemas, as `k8s-openapi` has them: what its API server would say to a document.
//!
//! [`super::kinds`] is stricter, but written by hand; this is generated from what Kubernetes
//! publishes. Of a field that must be there and is not, nothing is said here.

use k8s_openapi::{
    Resource,
    api::{
        apps::v1::DaemonSet,
        core::v1::{ConfigMap, Namespace},
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Holds a document against the schema of its kind: `Ok(false)` if Kubernetes itself has none.
pub(super) fn validate(text: &str) -> Result<bool, String> {
    let document: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let word = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
    let is_a = |version, kind| word("apiVersion") == version && word("kind") == kind;
    if is_a(DaemonSet::API_VERSION, DaemonSet::KIND) {
        against::<DaemonSet>(document)?;
    } else if is_a(ConfigMap::API_VERSION, ConfigMap::KIND) {
        against::<ConfigMap>(document)?;
    } else if is_a(Namespace::API_VERSION, Namespace::KIND) {
        against::<Namespace>(document)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn against<T: DeserializeOwned>(document: Value) -> Result<(), String> {
    let mut unknown = Vec::new();
    serde_ignored::deserialize::<_, _, T>(document, |path| unknown.push(path.to_string()))
        .map_err(|error| error.to_string())?;
    if unknown.is_empty() { Ok(()) } else { Err(format!("unknown: {}", unknown.join(", "))) }
}
