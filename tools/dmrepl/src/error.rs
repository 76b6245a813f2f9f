// SPDX-License-Identifier: GPL-2.0

//! Errors: what failed on which object and why, what to do about it, and the exit code for it.

use std::fmt;

/// How the tool ends; the numbers are part of its interface (see the manual page).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The kernel or a device refused, or something failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No such group or link.
    NotFound = 3,
    /// The kernel module is not loaded.
    NoModule = 4,
    /// The caller may not do this.
    NotPermitted = 5,
    /// `srl check` or `srl dump` found damage.
    Damaged = 6,
}

/// An error as the user sees it.
#[derive(Debug)]
pub struct Error {
    what: String,
    hint: Option<String>,
    exit: Exit,
}

/// Result of everything here.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns what failed, on which object, and why.
    pub fn new(what: impl Into<String>) -> Self {
        Error {
            what: what.into(),
            hint: None,
            exit: Exit::Failed,
        }
    }

    /// Returns an I/O error with what was being done.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        let exit = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Exit::NotPermitted,
            _ => Exit::Failed,
        };
        Error::new(format!("{what}: {}", plain(error))).exit(exit)
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the exit code.
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Returns the exit code.
    pub fn exit_code(&self) -> u8 {
        self.exit as u8
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dmrepl: error: {}", self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

/// Returns the text of an error without Rust's "(os error N)".
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_string(),
        None => text,
    }
}

/// Says something on stderr that does not stop the command.
pub fn warn(text: impl fmt::Display) {
    eprintln!("dmrepl: warning: {text}");
}
