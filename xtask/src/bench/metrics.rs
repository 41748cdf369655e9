//! The daemon's own figures, asked for on its Unix socket.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// One scrape.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// Asks the daemon at `socket`.
    pub(crate) fn ask(socket: &Path) -> Result<Self> {
        get(socket, "/metrics")
            .map(Self)
            .with_context(|| format!("cannot read metrics on {}", socket.display()))
    }

    /// All series of a family of counters or gauges, added up; 0 if there is none.
    pub(crate) fn sum(&self, family: &str) -> f64 {
        self.values(family).sum()
    }

    /// As [`Self::sum`], of the series in whose labels `label` stands.
    pub(crate) fn sum_of(&self, family: &str, label: &str) -> f64 {
        let lines = self.0.lines().filter(|line| line.contains(label));
        lines.filter_map(|line| value(line, family)).sum()
    }

    /// The values of all series of a family of counters or gauges.
    pub(crate) fn values(&self, family: &str) -> impl Iterator<Item = f64> {
        self.0.lines().filter_map(move |line| value(line, family))
    }

    /// How many series there are in all.
    pub(crate) fn series(&self) -> usize {
        self.0.lines().filter(|line| !line.starts_with('#')).count()
    }
}

/// Whether a daemon answers at `socket` that it is ready.
pub(crate) fn is_ready(socket: &Path) -> bool {
    get(socket, "/readyz").is_ok()
}

/// The value in a line of the text format, if it is of that family.
fn value(line: &str, family: &str) -> Option<f64> {
    let rest = line.strip_prefix(family)?;
    let value = match rest.as_bytes().first()? {
        b'{' => rest.rsplit_once('}')?.1,
        b' ' => rest,
        _ => return None,
    };
    value.split_whitespace().next()?.parse().ok()
}

/// The body of the answer to `route`. HTTP/1.0: the end of the connection is the end of the body.
pub(crate) fn get(socket: &Path, route: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(stream, "GET {route} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        bail!("the daemon answered {status:?} to {route}");
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_family_are_added_up_and_no_others() {
        let text = "# TYPE a_total counter\na_total{where=\"ring\"} 3\n\
                    a_total{where=\"sub}scriber\"} 4\na_total_more 100\nb 1.5e3\n";
        let metrics = Metrics(text.to_owned());
        for (family, sum) in [("a_total", 7.0), ("b", 1500.0), ("c", 0.0)] {
            assert!((metrics.sum(family) - sum).abs() < 1e-9, "{family}");
        }
        assert!((metrics.sum_of("a_total", "where=\"ring") - 3.0).abs() < 1e-9);
    }
}
