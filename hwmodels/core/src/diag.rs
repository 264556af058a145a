//! Diagnostics: one message that names the file, the place and the cure.

use std::fmt::{self, Write};

/// Shorthand for results whose error is a [`Diag`].
pub type Result<T> = std::result::Result<T, Diag>;

/// Whose fault it is, and so the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The input was wrong: exit status 2.
    Input,
    /// The weights do not fit: exit status 2 for a run, a row of its own in a sweep.
    DoesNotFit,
    /// The run failed (a full disk, a broken invariant, an interrupt): exit status 1.
    Run,
}

/// What went wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diag {
    /// Whose fault it is.
    pub class: Class,
    /// The file, as the user named it.
    pub file: Option<String>,
    /// The place in it: `12:5` (line and column), a key, a row.
    pub place: Option<String>,
    /// What is wrong, a lower-case sentence without full stop.
    pub problem: String,
    /// What to do, a lower-case sentence without full stop; may be empty.
    pub cure: String,
}

impl Diag {
    /// The input was wrong.
    pub fn input(problem: impl Into<String>) -> Self {
        Self { class: Class::Input, file: None, place: None, problem: problem.into(), cure: String::new() }
    }
    /// The weights do not fit.
    pub fn does_not_fit(problem: impl Into<String>) -> Self {
        Self { class: Class::DoesNotFit, ..Self::input(problem) }
    }
    /// The run failed.
    pub fn run(problem: impl Into<String>) -> Self {
        Self { class: Class::Run, ..Self::input(problem) }
    }
    /// Names the file, unless one is named already.
    pub fn file(mut self, file: impl AsRef<std::path::Path>) -> Self {
        self.file.get_or_insert_with(|| file.as_ref().display().to_string());
        self
    }
    /// Names the place, unless one is named already.
    pub fn place(mut self, place: impl Into<String>) -> Self {
        self.place.get_or_insert_with(|| place.into());
        self
    }
    /// Says what to do.
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = cure.into();
        self
    }
    /// A file that cannot be read.
    pub fn cannot_read(file: impl AsRef<std::path::Path>, e: &std::io::Error) -> Self {
        Self::input(format!("cannot be read: {}", io_words(e))).file(file).cure("check the path and its permissions")
    }
    /// A file that cannot be written.
    pub fn cannot_write(file: impl AsRef<std::path::Path>, e: &std::io::Error) -> Self {
        Self::run(format!("cannot be written: {}", io_words(e)))
            .file(file)
            .cure("check the free space and the permissions, or choose another --out")
    }
    /// The exit status of the process.
    pub fn exit_code(&self) -> u8 {
        match self.class {
            Class::Input | Class::DoesNotFit => 2,
            Class::Run => 1,
        }
    }
}

fn io_words(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// The most characters that a part of a message has, escapes counted as they are written.
const SHOWN: usize = 500;

/// What a file says of itself may be quoted in a message: it stays one line, sends a terminal no commands, and is
/// short.
fn shown(f: &mut fmt::Formatter, text: &str) -> fmt::Result {
    let mut left = SHOWN;
    for c in text.chars() {
        let wide = if c.is_control() { c.escape_default().len() } else { 1 };
        if wide > left {
            return f.write_str("...");
        }
        left -= wide;
        if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
    }
    Ok(())
}

impl fmt::Display for Diag {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for part in [&self.file, &self.place].into_iter().flatten() {
            shown(f, part)?;
            f.write_str(": ")?;
        }
        shown(f, &self.problem)?;
        if !self.cure.is_empty() {
            f.write_str("; ")?;
            shown(f, &self.cure)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diag {}

/// The candidate nearest to `word`, if it is near enough to be a typing error.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&word.to_lowercase(), &c.to_lowercase()), c))
        .filter(|(d, c)| *d <= 2.max(c.len() / 2))
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// "`x` is not a KIND", with the nearest name or all of them.
pub fn unknown(kind: &str, word: &str, known: &[&str]) -> Diag {
    // A name that is longer than any known is quoted in part.
    let short: String = word.chars().take(100).collect();
    let word = if short.len() < word.len() { short + "..." } else { short };
    let cure = match nearest(&word, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"? (known: {})", known.join(", ")),
        None => format!("known: {}", known.join(", ")),
    };
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    Diag::input(format!("\"{word}\" is not {article} {kind}")).cure(cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_stays_in_its_line() {
        let text =
            Diag::input("has \u{1b}[2J\nand").file("a\tb").place("x".repeat(9999)).cure("correct it").to_string();
        assert!(text.starts_with("a\\tb: xxx") && text.len() < 600, "{text}");
        let controls = Diag::input("\u{1b}".repeat(999)).cure("\t".repeat(999)).to_string();
        assert_eq!(controls, format!("{}...; {}...", "\\u{1b}".repeat(500 / 6), "\\t".repeat(250)));
        assert!(unknown("model", &"x".repeat(9999), &["a"]).to_string().len() < 200);
        assert!(text.ends_with("x...: has \\u{1b}[2J\\nand; correct it"), "{text}");
    }
}
