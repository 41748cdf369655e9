//! The terminal, taken and given back whatever ends the program, and the signals that end it.

use std::io;

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that end the program. To be had before the [`Screen`]: one that came in between would
/// end it at once, and leave the user with a terminal that shows nothing that is typed.
pub(super) struct Ends([Signal; 4]);

impl Ends {
    /// From now on these signals no longer kill.
    pub(super) fn register() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("cannot wait for signals");
        Ok(Self([
            of(SignalKind::terminate())?,
            of(SignalKind::interrupt())?,
            of(SignalKind::hangup())?,
            of(SignalKind::quit())?,
        ]))
    }

    /// Returns when one has come, also if it came before the call.
    pub(super) async fn recv(&mut self) {
        let [terminate, interrupt, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

/// The terminal while it is ours. Dropped, it is as it was; a panic puts it back before its message
/// is written (ratatui's hook).
pub(super) struct Screen {
    // Dropped in this order: the cursor is shown again before the screen is left.
    terminal: DefaultTerminal,
    _giver: GiveBack,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take(_after: &Ends) -> anyhow::Result<Self> {
        // Before it is taken: that has several steps, and one may fail when others are done.
        let giver = GiveBack;
        let terminal = ratatui::try_init()
            .context("cannot take the terminal; `tcpmon report` does without one")?;
        Ok(Self { terminal, _giver: giver })
    }

    /// Puts a picture on it.
    pub(super) fn draw(&mut self, picture: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(picture).map(drop)
    }

    /// Forgets what is on it, so that the next picture is drawn as a whole.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }
}

struct GiveBack;

impl Drop for GiveBack {
    fn drop(&mut self) {
        // A terminal that has gone cannot be put back, and nobody is there to be told.
        let _ = ratatui::try_restore();
    }
}
