//! The browser that xtask drives, as a test wants it: what goes wrong ends the test.

use serde_json::Value;
use tempfile::TempDir;

/// A browser with one page.
pub(crate) struct Browser {
    browser: xtask::browser::Browser,
    // After the browser, which writes there until it has ended.
    _profile: TempDir,
}

impl Browser {
    /// Starts one; `None` where this machine has no ChromeDriver.
    pub(crate) fn start() -> Option<Self> {
        let profile = tempfile::tempdir().expect("a folder");
        let browser = xtask::browser::Browser::start(profile.path()).expect("a browser")?;
        Some(Self { browser, _profile: profile })
    }

    /// Goes to a page.
    pub(crate) fn open(&self, url: &str) {
        self.browser.open(url).expect("a page");
    }

    /// Runs a script on the page, and gives what it returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.browser.run(script).expect("a script that runs")
    }

    /// Waits until a script returns true.
    pub(crate) fn wait(&self, what: &str, script: &str) {
        self.browser.wait(what, script).unwrap_or_else(|why| panic!("{why:#}"));
    }

    /// Sets what only the DevTools protocol can set.
    pub(crate) fn emulate(&self, command: &str, parameters: &Value) {
        self.browser.devtools(command, parameters).expect("a setting");
    }

    /// What the console has said since it was asked last.
    pub(crate) fn console(&self) -> Vec<String> {
        self.browser.console().expect("a console")
    }
}
