//! A container image in the OCI's layout, from nothing but the binary: what podman, skopeo and
//! containerd load, without a builder (`skopeo copy oci-archive:FILE ...`, `podman load -i FILE`).

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Release, archive, sha256};

pub(super) fn make(release: &Release) -> Result<()> {
    let work = release.out.join(".oci");
    let (files, image) = (work.join("files"), work.join("image"));
    let blobs = image.join("blobs/sha256");
    fs::create_dir_all(&files)?;
    fs::create_dir_all(&blobs)?;
    fs::copy(&release.binary, files.join("tcpmon"))?;
    fs::set_permissions(files.join("tcpmon"), fs::Permissions::from_mode(0o755))?;
    let layer = work.join("layer.tar");
    archive::tar(&files, release.time, &layer, false)?;
    // Whoever unpacks it checks the sum of what is packed and of what is not.
    let plain = sha256(&fs::read(&layer)?);
    let packed = work.join("layer.tar.gz");
    archive::tar(&files, release.time, &packed, true)?;
    let layer = blob(&blobs, &fs::read(&packed)?, "application/vnd.oci.image.layer.v1.tar+gzip")?;

    let config = json!({
        "architecture": Release::architecture(),
        "os": "linux",
        "config": { "Entrypoint": ["/tcpmon"], "Cmd": ["daemon"], "Env": ["PATH=/"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{plain}")] },
        "history": [{ "created_by": "cargo xtask dist" }],
    });
    let config = blob(&blobs, &bytes(&config)?, "application/vnd.oci.image.config.v1+json")?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
        "annotations": {
            "org.opencontainers.image.title": "tcpmon",
            "org.opencontainers.image.version": release.version,
            "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        },
    });
    let mut manifest =
        blob(&blobs, &bytes(&manifest)?, "application/vnd.oci.image.manifest.v1+json")?;
    let tag = json!({ "org.opencontainers.image.ref.name": release.version });
    manifest["annotations"] = tag;
    manifest["platform"] = json!({ "architecture": Release::architecture(), "os": "linux" });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    fs::write(image.join("index.json"), bytes(&index)?)?;
    fs::write(image.join("oci-layout"), bytes(&json!({ "imageLayoutVersion": "1.0.0" }))?)?;
    let name = format!("tcpmon-{}-{}-oci.tar", release.version, Release::architecture());
    archive::tar(&image, release.time, &release.out.join(name), false)?;
    fs::remove_dir_all(work)?;
    Ok(())
}

fn bytes(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

/// Stores bytes under their sum; returns what refers to them.
fn blob(folder: &Path, bytes: &[u8], kind: &str) -> Result<Value> {
    let digest = sha256(bytes);
    fs::write(folder.join(&digest), bytes)?;
    Ok(json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
}
