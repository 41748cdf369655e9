//! A browser, driven by ChromeDriver over the WebDriver protocol (W3C), which is HTTP and JSON.
//!
//! The page's test and [`crate::screens`] use it.

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// How long the page gets for anything: two reports, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the page is asked.
const LOOKS: Duration = Duration::from_millis(100);

/// A browser with one page. It ends when dropped.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    /// Starts one that keeps what it has to keep in the folder `profile`; `None` where this
    /// machine has no ChromeDriver.
    pub fn start(profile: &Path) -> Result<Option<Self>> {
        let begun = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C is for this process alone, which ends the browser in order.
            .process_group(0)
            .spawn();
        let Ok(driver) = begun else { return Ok(None) };
        let mut browser = Self { driver, port: 0, session: String::new() };
        browser.open_session(profile)?;
        Ok(Some(browser))
    }

    fn open_session(&mut self, profile: &Path) -> Result<()> {
        let stdout = self.driver.stdout.take().context("ChromeDriver has no output")?;
        let mut said = BufReader::new(stdout).lines();
        self.port = said
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split("successfully on port ").nth(1)?.trim_end_matches('.').parse().ok()
            })
            .context("ChromeDriver does not tell its port; does `chromedriver` start by hand?")?;
        // What it says later must go somewhere.
        thread::spawn(move || said.for_each(drop));
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1440,1400",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = self.ask("POST", "/session", &wanted)?;
        session["sessionId"].as_str().context("no session")?.clone_into(&mut self.session);
        Ok(())
    }

    /// Goes to a page.
    pub fn open(&self, url: &str) -> Result<()> {
        self.command("url", &json!({"url": url})).map(drop)
    }

    /// Runs a script on the page, and gives what it returns.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until a script returns true.
    pub fn wait(&self, what: &str, script: &str) -> Result<()> {
        let begin = Instant::now();
        while self.run(script)? != json!(true) {
            if begin.elapsed() > PATIENCE {
                let said = self.run("return document.body.innerText")?;
                bail!("{what} does not come; the page says: {said}");
            }
            thread::sleep(LOOKS);
        }
        Ok(())
    }

    /// Sets, or gets, what only the DevTools protocol can.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.command("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// What the console has said since it was asked last.
    pub fn console(&self) -> Result<Vec<String>> {
        let said = self.command("se/log", &json!({"type": "browser"}))?;
        let lines = said.as_array().context("no list of the console's lines")?.iter();
        Ok(lines.map(|line| line["message"].to_string()).collect())
    }

    fn command(&self, name: &str, body: &Value) -> Result<Value> {
        self.ask("POST", &format!("/session/{}/{name}", self.session), body)
    }

    fn ask(&self, method: &str, route: &str, body: &Value) -> Result<Value> {
        let said = || format!("ChromeDriver does not answer to {method} {route}");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).with_context(said)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = body.to_string();
        write!(
            stream,
            "{method} {route} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )
        .with_context(said)?;
        let text = body_of(&mut BufReader::new(stream)).with_context(said)?;
        let mut answer: Value = serde_json::from_slice(&text).with_context(said)?;
        let value = answer["value"].take();
        if value.get("error").is_some() {
            bail!("{method} {route}: {value}");
        }
        Ok(value)
    }
}

/// The body of an answer, by its length: ChromeDriver keeps connections, whatever it is asked.
fn body_of(answer: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        answer.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    answer.read_exact(&mut body)?;
    Ok(body)
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Also after a failure, and without another one: the browser must go.
        if !self.session.is_empty()
            && let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port))
        {
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = write!(
                stream,
                "DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n",
                self.session, self.port
            );
            let _ = stream.read(&mut [0; 16]);
        }
        if let Some(pid) = Pid::from_raw(self.driver.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.driver.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let mut answer = &b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodynext"[..];
        assert_eq!(body_of(&mut answer).expect("a body"), b"body");
        let mut short = &b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbo"[..];
        assert!(body_of(&mut short).is_err());
    }
}
