//! What keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    drill::Drill,
    state::{LINES, Sort, State, Tab},
    stream::Wanted,
};

/// Rows that a page is.
const PAGE: isize = 10;

/// Letters that a filter may have.
const FILTER: usize = 60;

/// What a key asks of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing more.
    None,
    /// To end.
    Quit,
    /// To draw everything anew.
    Redraw,
    /// To stream that from now on.
    Stream(Wanted),
}

impl State {
    /// Does what a key asks for.
    pub(super) fn key(&mut self, key: KeyEvent) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Action::Quit,
                KeyCode::Char('l') => Action::Redraw,
                _ => Action::None,
            };
        }
        if self.typing {
            self.type_filter(key.code);
            return Action::None;
        }
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char(' ' | 'p') => self.pause(!self.paused),
            KeyCode::Char('s') => {
                self.sort = match self.sort {
                    Sort::Most => Sort::Fastest,
                    Sort::Fastest => Sort::Name,
                    Sort::Name => Sort::Most,
                };
            }
            KeyCode::Char(number @ '1'..='5') => {
                let tab = Tab::ALL[usize::from(number as u8 - b'1')];
                if self.tab == tab {
                    // Where one is already: back to its beginning.
                    self.drilled = None;
                }
                self.show(tab);
            }
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Tab::ALL.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.walk(1),
            KeyCode::Up | KeyCode::Char('k') => self.walk(-1),
            KeyCode::PageDown => self.walk(PAGE),
            KeyCode::PageUp => self.walk(-PAGE),
            KeyCode::Home => self.walk(isize::MIN),
            KeyCode::End => self.walk(isize::MAX),
            KeyCode::Enter if self.tab == Tab::Ports && !self.help => self.enter(),
            KeyCode::Esc => self.back(),
            _ => {}
        }
        self.selected = self.selected.min(self.rows().saturating_sub(1));
        self.newly_wanted().map_or(Action::None, Action::Stream)
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.filter.chars().count() < FILTER => {
                self.filter.push(letter);
            }
            _ => {}
        }
        self.selected = 0;
    }

    fn show(&mut self, tab: Tab) {
        self.help = false;
        self.tab = tab;
        self.selected = 0;
    }

    fn turn(&mut self, by: usize) {
        let now = Tab::ALL.iter().position(|tab| *tab == self.tab).unwrap_or(0);
        self.show(Tab::ALL[(now + by) % Tab::ALL.len()]);
    }

    /// How many rows can be chosen from, or how far one can go back.
    fn rows(&self) -> usize {
        match self.tab {
            // What passes by cannot be read from a place of its own, only what is held still.
            Tab::Live if self.paused => self.stream.lines.len().min(LINES),
            Tab::Live => 0,
            _ => self.row_names().len(),
        }
    }

    fn walk(&mut self, by: isize) {
        if let (Tab::Ports, Some(drill)) = (self.tab, &mut self.drilled) {
            if drill.owner.is_none() {
                drill.choose(by);
            }
            return;
        }
        // The latest transition is the last: up is back.
        let by = if self.tab == Tab::Live { by.saturating_neg() } else { by };
        let last = self.rows().saturating_sub(1);
        self.selected = self.selected.saturating_add_signed(by).min(last);
    }

    /// A step farther in: a destination's owners, an owner's sockets.
    fn enter(&mut self) {
        let Some(drill) = &mut self.drilled else {
            self.drilled = self.ports().get(self.selected).map(|row| Drill::into((*row).clone()));
            return;
        };
        if drill.owner.is_none() {
            let owners = &drill.row.owners;
            let last = owners.len().saturating_sub(1);
            drill.owner = owners.get(drill.chosen.min(last)).map(|owner| owner.service.clone());
        }
    }

    /// A step back out.
    fn back(&mut self) {
        if self.help {
            self.help = false;
        } else if let (Tab::Ports, Some(drill)) = (self.tab, &mut self.drilled) {
            if drill.owner.take().is_none() {
                self.drilled = None;
            }
        } else {
            self.filter.clear();
        }
    }
}
