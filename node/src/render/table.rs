//! Columns that line up. Rows wait until their widths are known, so a table is bounded and long ones come in parts.

use std::io::{self, Write};

/// A row and the head of the table that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Names of the columns; a leading `>` aligns to the right.
    pub head: &'static [&'static str],
    /// The cells.
    pub cells: Vec<String>,
}

/// Rows of one head that wait.
#[derive(Debug, Default)]
pub struct Table {
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
    head_shown: bool,
}

/// Rows that wait at most: more than a screen, and nothing in memory.
const ROWS_MAX: usize = 256;

impl Table {
    /// Adds a row.
    pub fn push(&mut self, row: Row, out: &mut dyn Write, color: bool) -> io::Result<()> {
        if self.head != row.head {
            self.flush(out, color)?;
            self.head = row.head;
            self.head_shown = false;
        }
        self.rows.push(row.cells);
        if self.rows.len() >= ROWS_MAX {
            self.flush(out, color)
        } else {
            Ok(())
        }
    }

    /// Writes the rows that wait.
    pub fn flush(&mut self, out: &mut dyn Write, color: bool) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = self
            .head
            .iter()
            .map(|name| name.trim_start_matches('>').to_owned())
            .collect();
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&names]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        if !self.head_shown {
            let line = self.line(&names, &widths);
            if color {
                writeln!(out, "\x1b[1m{line}\x1b[0m")?
            } else {
                writeln!(out, "{line}")?
            }
            self.head_shown = true;
        }
        for row in &self.rows {
            writeln!(out, "{}", self.line(row, &widths))?;
        }
        self.rows.clear();
        Ok(())
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, name), width) in cells.iter().zip(self.head).zip(widths) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let space = " ".repeat(width.saturating_sub(cell.chars().count()));
            match name.starts_with('>') {
                true => line.extend([space.as_str(), cell.as_str()]),
                false => line.extend([cell.as_str(), space.as_str()]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}
