//! A TOML file as a flat list of keys with their places.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong in the file, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Byte of the file.
    pub(super) offset: usize,
    /// One line.
    pub(super) message: String,
}

/// One value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// As one would write it on the command line.
    pub(super) text: String,
    /// It is a boolean, not the string `"true"`.
    pub(super) boolean: bool,
    /// Byte of the file where it begins.
    pub(super) offset: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    One(Item),
    Many(Vec<Item>),
}

/// A key, dotted where it is in a table, and its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Value,
    /// Byte of the file where the key, or its last part, begins.
    pub(super) offset: usize,
}

/// The entries of a TOML file, in the order of their places. `web.x = 1`, `"web.x" = 1` and `x = 1`
/// under `[web]` are the same.
pub(super) fn entries(bytes: &[u8]) -> Result<Vec<Entry>, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| Problem {
        offset: error.valid_up_to(),
        message: "this is not UTF-8 text".to_owned(),
    })?;
    let table = DeTable::parse(text).map_err(|error| Problem {
        offset: error.span().map_or(0, |span| span.start),
        message: error.message().lines().collect::<Vec<_>>().join(", "),
    })?;
    let mut entries = Vec::new();
    flatten("", table.get_ref(), &mut entries)?;
    entries.sort_by_key(|entry| entry.offset);
    for (index, entry) in entries.iter().enumerate() {
        if entries[..index].iter().any(|earlier| earlier.key == entry.key) {
            let message = format!("{} is given twice", entry.key);
            return Err(Problem { offset: entry.offset, message });
        }
    }
    Ok(entries)
}

fn flatten(prefix: &str, table: &DeTable<'_>, entries: &mut Vec<Entry>) -> Result<(), Problem> {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        let value = match value.get_ref() {
            DeValue::Table(table) => {
                flatten(&format!("{key}."), table, entries)?;
                continue;
            }
            DeValue::Array(items) => {
                Value::Many(items.iter().map(|value| item(&key, value)).collect::<Result<_, _>>()?)
            }
            _ => Value::One(item(&key, value)?),
        };
        entries.push(Entry { key, value, offset: name.span().start });
    }
    Ok(())
}

fn item(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Item, Problem> {
    let offset = value.span().start;
    let refuse = |what: &str| Err(Problem { offset, message: format!("{key} cannot be {what}") });
    let text = match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Float(value) => value.as_str().to_owned(),
        DeValue::Integer(value) => match i128::from_str_radix(value.as_str(), value.radix()) {
            Ok(value) => value.to_string(),
            Err(_) => return refuse("so large a number"),
        },
        DeValue::Datetime(_) => return refuse("a date or time; write it in quotes"),
        DeValue::Array(_) => return refuse("a list in a list"),
        DeValue::Table(_) => return refuse("a table in a list"),
    };
    if text.contains('\0') {
        return refuse("text with a NUL byte");
    }
    Ok(Item { text, boolean: value.get_ref().is_bool(), offset })
}

/// Line and character, both from 1 on, of a byte.
pub(super) fn position(text: &[u8], offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start =
        before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.split(|&byte| byte == b'\n').count();
    (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
}
