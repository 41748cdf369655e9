//! What keys do and marks mean, on the screen.

use ratatui::{
    Frame,
    layout::Rect,
    widgets::{Block, Paragraph},
};

use super::super::super::ports_text;

const KEYS: &str = "\
1 to 5, Tab    another pane; a pane's own number leads back to its beginning
Up, Down       another row; PgUp, PgDn, Home, End
Enter          from a destination to its owners, from an owner to its sockets
Esc            a step back; forget the filter
s              order: most first, fastest first, by name
/              leave out rows without these letters
p, Space       hold still, and go on; meanwhile Up leads back in pane 5
Ctrl-L         draw everything anew
?              this
q, Ctrl-C      the end
";

/// Draws it.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect) {
    let text = format!("{KEYS}\n{}", ports_text::legend());
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title("Keys")), area);
}
