//! One line for each row of the table.

use std::fmt;

/// What a figure must reach.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// No more.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
}

/// A row of the table. Printed, it is one line of five cells.
#[derive(Debug)]
pub struct Row {
    /// Its place in the table.
    pub number: u8,
    /// What was measured.
    pub name: &'static str,
    /// What came out.
    pub figure: f64,
    /// Digits after the point.
    pub digits: usize,
    /// What it must reach.
    pub goal: Goal,
}

impl Row {
    /// A row that may be no more than this.
    #[must_use]
    pub fn at_most(number: u8, name: &'static str, figure: f64, most: f64) -> Self {
        Self {
            number,
            name,
            figure,
            digits: 0,
            goal: Goal::AtMost(most),
        }
    }

    /// With so many digits after the point.
    #[must_use]
    pub fn digits(self, digits: usize) -> Self {
        Self { digits, ..self }
    }

    /// Whether the goal is reached. What was measured counts, not what is printed of it.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        match self.goal {
            Goal::AtMost(most) => self.figure <= most,
            Goal::AtLeast(least) => self.figure >= least,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, name, figure, digits) = (self.number, self.name, self.figure, self.digits);
        let verdict = if self.is_ok() { "ok" } else { "short" };
        let goal = match self.goal {
            Goal::AtMost(most) => format!("<= {most}"),
            Goal::AtLeast(least) => format!(">= {least}"),
        };
        write!(
            f,
            "{number:2} | {name} | {figure:.digits$} | {goal} | {verdict}"
        )
    }
}
