//! Pictures of the page, as a browser draws it.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::browser::Browser;

/// How a picture of the page is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Width and height, in the page's pixels.
    pub(super) size: (u32, u32),
    /// The picture's pixels for each of the page's.
    pub(super) scale: u32,
    /// A phone, whose browser lays out for its own width.
    pub(super) is_phone: bool,
    /// What `prefers-color-scheme` says.
    pub(super) scheme: &'static str,
}

/// A browser that has the page open.
pub(super) struct Page(Browser);

impl Page {
    /// Opens the page of the daemon at `address`, and waits for its first report.
    pub(super) fn open(address: SocketAddr, profile: &Path) -> Result<Self> {
        let Some(browser) = Browser::start(profile)? else {
            bail!(
                "there is no chromedriver, whose browser draws the page: install chromium and \
                 chromedriver (Debian: chromium-driver)"
            );
        };
        // Curves are drawn for the size that they are seen in, and nothing may be half-way.
        browser.devtools("Emulation.setScrollbarsHidden", &json!({"hidden": true}))?;
        browser.open(&format!("http://{address}/"))?;
        browser.wait("the first report", "return headline.textContent.includes('alert')")?;
        Ok(Self(browser))
    }

    /// Takes a picture, in PNG.
    pub(super) fn picture(&self, view: View) -> Result<Vec<u8>> {
        let View { size: (width, height), scale, is_phone, scheme } = view;
        self.0.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": height, "deviceScaleFactor": scale,
                    "mobile": is_phone}),
        )?;
        let features = json!([{"name": "prefers-color-scheme", "value": scheme},
                              {"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.0.devtools("Emulation.setEmulatedMedia", &json!({"features": features}))?;
        // The next report: by then everything has the new size and colours.
        self.0.run("window.before = document.getElementById('host').textContent")?;
        self.0.wait(
            "a report of ports that have run out",
            "return document.getElementById('host').textContent !== window.before
                && document.getElementById('subline').textContent.includes('none is left')",
        )?;
        self.0.run("window.scrollTo(0, 0)")?;
        let taken = self.0.devtools("Page.captureScreenshot", &json!({"format": "png"}))?;
        let text = taken["data"].as_str().context("the browser gives no picture")?;
        STANDARD.decode(text).context("the browser's picture is not base64")
    }
}
