//! `tcpmon tail`: the live stream, from the daemon or from probes of its own.

use super::{
    DEFAULT_SOCKET, OutputError,
    client::{self, Unreachable},
    columns::{Columns, colour_wanted},
    daemon::LimitArgs,
    filter_args::FilterArgs,
};
use crate::{
    daemon::pipeline::{Limits, Pipeline},
    export::Format,
    model::{filter::Filter, json},
};
use anyhow::{Context, bail};
use bytes::{Buf, BytesMut};
use clap::Args;
use http_body_util::BodyExt;
use jiff::tz::TimeZone;
use log::LevelFilter;
use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
};
use std::{
    env,
    io::{self, IsTerminal, StdoutLock, Write},
    path::PathBuf,
    thread,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// Options of `tail`.
#[derive(Args, Debug)]
pub struct TailArgs {
    #[command(flatten)]
    filter: FilterArgs,

    /// Write one JSON object a line
    #[arg(long)]
    json: bool,

    /// Use probes of its own, whether a daemon runs or not; needs what the daemon needs
    #[arg(long)]
    standalone: bool,

    /// Ask the daemon on this Unix socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,

    #[command(flatten)]
    limits: LimitArgs,
}

/// Shows transitions until it is interrupted, has shown as many as wanted, or nobody reads.
///
/// # Errors
///
/// Where there is neither a daemon nor the right to do without, or the output cannot be written.
pub fn run(args: TailArgs) -> anyhow::Result<()> {
    super::log::init(LevelFilter::Warn);
    let wide = args.filter.ipv6 && !args.filter.ipv4;
    let output = Output::new(args.json, wide);
    let filter = Filter::from(args.filter);
    let limits = Limits::from(&args.limits);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        if args.standalone {
            return standalone(filter, limits, output).await;
        }
        match client::connect(&args.socket).await {
            Ok(stream) => {
                let route = match filter.to_query().as_str() {
                    "" => "/api/v1/events".to_owned(),
                    query => format!("/api/v1/events?{query}"),
                };
                let response = client::get(stream, &route).await?;
                tokio::select! {
                    done = from_daemon(response.into_body(), &filter, output) => done,
                    gone = nobody_reads() => Err(gone),
                }
            }
            Err(absent @ Unreachable::Absent { .. }) => {
                client::do_without(&absent)?;
                standalone(filter, limits, output).await
            }
            Err(forbidden) => Err(forbidden.into()),
        }
    })
}

/// Waits until nobody reads standard output any more: while there is nothing to write, no write
/// tells. For ever where that cannot be watched, as a file.
async fn nobody_reads() -> anyhow::Error {
    let (tell, told) = oneshot::channel();
    let watch = move || {
        let stdout = io::stdout();
        // Of errors and of a terminal that has gone poll() tells unasked.
        let mut output = [PollFd::new(&stdout, PollFlags::empty())];
        while rustix::event::poll(&mut output, None) == Err(Errno::INTR) {}
        if output[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            let _ = tell.send(());
        }
    };
    // A thread that the end of the program ends.
    if thread::Builder::new().spawn(watch).is_err() || told.await.is_err() {
        return std::future::pending().await;
    }
    OutputError(io::ErrorKind::BrokenPipe.into()).into()
}

async fn from_daemon(
    mut body: hyper::body::Incoming,
    filter: &Filter,
    mut output: Output,
) -> anyhow::Result<()> {
    output.begin()?;
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the daemon broke the stream off; is it still running?")?;
        if let Ok(chunk) = frame.into_data() {
            output.write(&chunk)?;
        }
    }
    if filter.count.is_some_and(|count| output.shown >= count.get()) {
        return Ok(());
    }
    bail!("the daemon ended the stream; start it again, or use --standalone")
}

async fn standalone(filter: Filter, limits: Limits, mut output: Output) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let pipeline = Pipeline::start_streaming(limits)?;
    let subscription = pipeline.hub.subscribe(filter, Format::JsonLines)?;
    let shown = async {
        output.begin()?;
        while let Some(chunk) = subscription.next().await {
            output.write(&chunk)?;
        }
        Ok(())
    };
    let done = tokio::select! {
        done = shown => done,
        gone = nobody_reads() => Err(gone),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    drop(subscription);
    pipeline.stop();
    done
}

/// Standard output, in one of two forms.
struct Output {
    out: StdoutLock<'static>,
    /// `None`: the lines are JSON already.
    columns: Option<Columns>,
    /// The beginning of a line whose end has not come yet.
    partial: BytesMut,
    text: String,
    /// Events shown, gaps not counted.
    shown: u64,
}

impl Output {
    fn new(json: bool, wide: bool) -> Self {
        let stdout = io::stdout();
        let colour = colour_wanted(
            stdout.is_terminal(),
            env::var_os("NO_COLOR").as_deref(),
            env::var_os("TERM").as_deref(),
        );
        let columns = (!json).then(|| Columns::new(TimeZone::system(), colour, wide));
        Self {
            out: stdout.lock(),
            columns,
            partial: BytesMut::new(),
            text: String::new(),
            shown: 0,
        }
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        if let Some(columns) = &self.columns {
            columns.header(&mut self.text);
        }
        self.flush()
    }

    fn write(&mut self, chunk: &[u8]) -> anyhow::Result<()> {
        let Some(columns) = &mut self.columns else {
            // A gap begins with `{"lost"`, an event with `{"ts"`.
            self.shown += events_in(chunk);
            self.out.write_all(chunk).and_then(|()| self.out.flush()).map_err(OutputError)?;
            return Ok(());
        };
        self.partial.extend_from_slice(chunk);
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let line = json::parse_line(&self.partial[..end])
                .context("the daemon says something that this tcpmon does not know")?;
            self.shown += u64::from(matches!(line, crate::model::event::Line::Event(_)));
            columns.line(&line, &mut self.text);
            self.partial.advance(end + 1);
        }
        self.flush()
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let written = self.out.write_all(self.text.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(OutputError)?;
        self.text.clear();
        Ok(())
    }
}

/// Events in a piece of a stream of JSON lines, counted by their line ends less the gaps'.
fn events_in(chunk: &[u8]) -> u64 {
    let mut events = 0;
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', chunk) {
        events += u64::from(!chunk[start..].starts_with(b"{\"lost\""));
        start = end + 1;
    }
    events
}
