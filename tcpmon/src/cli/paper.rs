//! Text for people, laid out for the width of where it goes: headings, paragraphs, hanging entries.
//!
//! What is written is plain ASCII, so that it reads the same on a serial console, in a ticket and
//! in a terminal; colour is added for terminals only.

use std::{
    env,
    io::{self, IsTerminal, Write as _},
};

use super::{OutputError, columns::colour_wanted};

/// Width where nobody says which: a terminal's usual one.
const USUAL: usize = 80;
/// No narrower, whatever the terminal is: there, lines wrap by themselves.
const NARROWEST: usize = 40;

const RESET: &str = "\x1b[0m";

/// How something is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// As it is.
    Plain,
    /// A heading.
    Bold,
    /// What is there for reference only.
    Faint,
    /// All is well.
    Good,
    /// Something wants to be looked at.
    Warn,
    /// Something is broken.
    Bad,
}

impl Ink {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Faint => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[1;31m",
        }
    }
}

/// A sheet that text is put on.
#[derive(Debug)]
pub struct Paper {
    width: usize,
    colour: bool,
    text: String,
}

impl Paper {
    /// An empty sheet of that width, with colour or without.
    #[must_use]
    pub fn new(width: usize, colour: bool) -> Self {
        Self { width: width.max(NARROWEST), colour, text: String::new() }
    }

    /// An empty sheet for standard output: as wide as its terminal, `COLUMNS` or 80, but not wider
    /// than `widest`.
    #[must_use]
    pub fn for_stdout(widest: usize) -> Self {
        let stdout = io::stdout();
        let told = env::var("COLUMNS").ok().and_then(|width| width.parse().ok());
        let seen = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| size.ws_col.into());
        let width = told.or(seen).filter(|&width| width > 0).unwrap_or(USUAL);
        let colour = colour_wanted(
            stdout.is_terminal(),
            env::var_os("NO_COLOR").as_deref(),
            env::var_os("TERM").as_deref(),
        );
        Self::new(width.min(widest), colour)
    }

    /// How many characters a line may have.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// `text` in that ink, for [`Paper::line`].
    #[must_use]
    pub fn ink(&self, ink: Ink, text: &str) -> String {
        if self.colour && ink != Ink::Plain && !text.is_empty() {
            format!("{}{text}{RESET}", ink.code())
        } else {
            text.to_owned()
        }
    }

    /// An empty line, unless there is one already or nothing yet.
    pub fn gap(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// A heading, with a gap before it.
    pub fn heading(&mut self, text: &str) {
        self.gap();
        let text = self.ink(Ink::Bold, text);
        self.line(&text);
    }

    /// A line as it is, less the spaces at its end.
    pub fn line(&mut self, text: &str) {
        self.text.push_str(text.trim_end());
        self.text.push('\n');
    }

    /// A paragraph, wrapped, each line behind `indent` spaces.
    pub fn paragraph(&mut self, indent: usize, text: &str) {
        self.hanging(&" ".repeat(indent), indent, Ink::Plain, text);
    }

    /// `label`, and behind it `text`, whose further lines begin below its first.
    pub fn entry(&mut self, label: &str, text: &str) {
        let indent = label.chars().count();
        self.hanging(label, indent, Ink::Plain, text);
    }

    /// As [`Paper::entry`], with the label in an ink of its own and further lines behind `indent`.
    pub fn hanging(&mut self, label: &str, indent: usize, ink: Ink, text: &str) {
        let mut column = visible(label);
        let mut line = self.ink(ink, label);
        let mut between = "";
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let length = word.chars().count();
            // A word that is too long for any line stays where it is.
            if column > indent && column + between.len() + length > self.width {
                self.line(&line);
                line = " ".repeat(indent);
                column = indent;
                between = "";
            }
            line.push_str(between);
            // A no-break space keeps a name and its number together.
            line.push_str(&word.replace('\u{a0}', " "));
            column += between.len() + length;
            between = " ";
        }
        self.line(&line);
    }

    /// What has been written.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    /// Writes the sheet to standard output.
    ///
    /// # Errors
    ///
    /// Where that cannot be written.
    pub fn print(self) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(self.text.as_bytes()).and_then(|()| out.flush()).map_err(OutputError)?;
        Ok(())
    }
}

/// How many characters of `text` are seen: colours are not.
fn visible(text: &str) -> usize {
    let mut pieces = text.split('\x1b');
    let first = pieces.next().map_or(0, |piece| piece.chars().count());
    let coloured = pieces.map(|piece| piece.split_once('m').map_or("", |(_, text)| text));
    first + coloured.map(|text| text.chars().count()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_behind_its_label() {
        let mut paper = Paper::new(40, false);
        paper.heading("One");
        paper.entry("  label  ", "words that go on for more than a line, and then some");
        paper.paragraph(2, "averyveryveryveryveryverylongwordthatdoesnotfitanywhere and more");
        paper.heading("Two");
        insta::assert_snapshot!(paper.into_text(), @r"
        One
          label  words that go on for more than
                 a line, and then some
          averyveryveryveryveryverylongwordthatdoesnotfitanywhere
          and more

        Two
        ");
    }

    #[test]
    fn colour_is_only_where_it_is_wanted() {
        assert_eq!(Paper::new(80, false).ink(Ink::Bad, "x"), "x");
        assert_eq!(Paper::new(80, true).ink(Ink::Bad, "x"), "\x1b[1;31mx\x1b[0m");
        assert_eq!(Paper::new(80, true).ink(Ink::Plain, "x"), "x");
        let red = Paper::new(80, true).ink(Ink::Bad, "x");
        assert_eq!(visible(&format!("a {red} b")), 5);
    }
}
