//! Tables as aligned text, for a terminal, and as Markdown, for a page.

use std::fmt::Write as _;

/// How a table is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Columns aligned with blanks.
    Text,
    /// A table of GitHub's Markdown, whose source is aligned too.
    Markdown,
}

/// A title, a head and rows; the first column is words, the others are figures.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these names of columns.
    pub(crate) fn new(title: impl Into<String>, head: &[&str]) -> Self {
        Self { title: title.into(), rows: vec![head.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row, with as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Writes it down, with a line of its own for each row; empty if it has no rows.
    pub(crate) fn render(&self, form: Form) -> String {
        let [head, rows @ ..] = &*self.rows else { return String::new() };
        if rows.is_empty() {
            return String::new();
        }
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut out = match form {
            Form::Text => format!("{}\n\n", self.title),
            Form::Markdown => format!("### {}\n\n", self.title),
        };
        line(&mut out, form, head, &widths);
        let rule: Vec<String> = widths
            .iter()
            .enumerate()
            .map(|(column, width)| match (form, column) {
                (Form::Markdown, 1..) => format!("{}:", "-".repeat(width.saturating_sub(1))),
                _ => "-".repeat(*width),
            })
            .collect();
        line(&mut out, form, &rule, &widths);
        for row in rows {
            line(&mut out, form, row, &widths);
        }
        out
    }
}

fn line(out: &mut String, form: Form, cells: &[String], widths: &[usize]) {
    let mut text = String::new();
    for (column, width) in widths.iter().copied().enumerate() {
        let cell = cells.get(column).map_or("", String::as_str);
        let between = match (form, column) {
            (Form::Text, 0) => "",
            (Form::Text, _) => "  ",
            (Form::Markdown, 0) => "| ",
            (Form::Markdown, _) => " | ",
        };
        text.push_str(between);
        let _infallible = match column {
            0 => write!(text, "{cell:<width$}"),
            _ => write!(text, "{cell:>width$}"),
        };
    }
    if form == Form::Markdown {
        text.push_str(" |");
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

/// A whole number with its thousands apart: `27,123`.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::from(if number <= -0.5 { "-" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("Load", &["attached", "a second", "µs"]);
        table.row(vec!["nothing".into(), "27,000".into(), "–".into()]);
        table.row(vec!["tcpmon daemon".into(), "9".into(), "0.10".into()]);
        table
    }

    #[test]
    fn text_is_aligned_by_characters_not_bytes() {
        assert_eq!(
            table().render(Form::Text),
            "Load\n\n\
             attached       a second    µs\n\
             -------------  --------  ----\n\
             nothing          27,000     –\n\
             tcpmon daemon         9  0.10\n"
        );
    }

    #[test]
    fn markdown_says_which_columns_are_figures() {
        assert_eq!(
            table().render(Form::Markdown),
            "### Load\n\n\
             | attached      | a second |   µs |\n\
             | ------------- | -------: | ---: |\n\
             | nothing       |   27,000 |    – |\n\
             | tcpmon daemon |        9 | 0.10 |\n"
        );
    }

    #[test]
    fn a_table_without_rows_is_left_out() {
        assert_eq!(Table::new("Idle", &["a", "b"]).render(Form::Markdown), "");
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0.0, "0"),
            (999.4, "999"),
            (1000.0, "1,000"),
            (27123.0, "27,123"),
            (1_500_002.0, "1,500,002"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
