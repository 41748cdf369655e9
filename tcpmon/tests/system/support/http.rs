//! Enough of HTTP/1.1 (RFC 9112) to ask the daemon and to read streams.

use std::io::{BufRead, BufReader, Read, Write};

/// An answer whose head has come.
pub(crate) struct Response<S> {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body<S>,
}

/// Asks for `route`, and waits for the head of the answer.
pub(crate) fn get<S: Read + Write>(
    mut stream: S,
    route: &str,
    headers: &[(&str, &str)],
) -> Response<S> {
    let mut request = format!("GET {route} HTTP/1.1\r\nConnection: close\r\n");
    if headers.iter().all(|(name, _)| *name != "Host") {
        request.push_str("Host: tcpmon\r\n");
    }
    for (name, value) in headers {
        request.extend([name, ": ", value, "\r\n"]);
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).expect("a request sent");
    let mut reader = BufReader::new(stream);
    let status_line = head_line(&mut reader);
    let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {status_line:?}"));
    let mut headers = Vec::new();
    loop {
        let line = head_line(&mut reader);
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}"));
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |wanted: &str| {
        headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    };
    let framing = if header("transfer-encoding") == Some("chunked") {
        Framing::Chunked
    } else {
        Framing::Whole
    };
    let left = match (&framing, header("content-length")) {
        (Framing::Whole, Some(length)) => length.parse().expect("a length"),
        (Framing::Whole, None) => u64::MAX,
        (Framing::Chunked, _) => 0,
    };
    Response { status, headers, body: Body { reader, framing, left } }
}

fn head_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line of the head");
    line.strip_suffix("\r\n").unwrap_or_else(|| panic!("broken off: {line:?}")).to_owned()
}

impl<S: Read> Response<S> {
    pub(crate) fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    pub(crate) fn bytes(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.body.read_to_end(&mut bytes).expect("a body");
        bytes
    }

    pub(crate) fn text(self) -> String {
        String::from_utf8(self.bytes()).expect("UTF-8")
    }
}

enum Framing {
    /// To the end of the connection, or of the length in the head.
    Whole,
    Chunked,
}

/// The body of an answer, its framing taken off.
pub(crate) struct Body<S> {
    reader: BufReader<S>,
    framing: Framing,
    /// Bytes to come: of the body, or of the present chunk.
    left: u64,
}

impl<S: Read> Body<S> {
    /// Reads the line before a chunk; false at the end of the body.
    fn begin_chunk(&mut self) -> std::io::Result<bool> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if line == "\r\n" {
            // The end of the chunk before.
            line.clear();
            self.reader.read_line(&mut line)?;
        }
        // A daemon that was killed sends no last chunk.
        self.left = u64::from_str_radix(line.trim_end(), 16).unwrap_or(0);
        Ok(self.left > 0)
    }
}

impl<S: Read> Read for Body<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && (matches!(self.framing, Framing::Whole) || !self.begin_chunk()?) {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.reader.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}
