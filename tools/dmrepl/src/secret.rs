// SPDX-License-Identifier: GPL-2.0

//! The file with a group's shared secret.

use std::{fmt::Write, fs::File, io::Read, os::unix::fs::PermissionsExt, path::Path};

use crate::{
    error::{warn, Error, Result},
    uapi,
};

/// Random bytes of a new secret.
const NEW_BYTES: usize = 32;

/// Returns a new secret: random bytes of the kernel's, as hexadecimal digits.
pub fn generate() -> Result<String> {
    let mut bytes = [0u8; NEW_BYTES];
    random(&mut bytes)?;
    let mut digits = String::with_capacity(2 * NEW_BYTES);
    for b in bytes {
        // A string takes everything.
        let _ = write!(digits, "{b:02x}");
    }
    Ok(digits)
}

/// Fills `bytes` from the kernel's random number generator.
pub fn random(bytes: &mut [u8]) -> Result {
    getrandom::fill(bytes)
        .map_err(|e| Error::new(format!("cannot get random bytes from the kernel: {e}")))
}

/// Reads the secret: the file's bytes without one newline at the end.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let doing = format!("cannot read the secret from {}", path.display());
    let failed = |e| Error::io(&doing, &e);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::new(format!("{doing}: it is a directory")));
    }
    if let Some(text) = readable_by_others(metadata.is_file(), metadata.permissions().mode()) {
        warn(format!("{}: {text}", path.display()));
    }

    let limit = uapi::SECRET_MAX;
    let mut secret = Vec::new();
    // One byte for the newline, one to see that there is more.
    file.take(uapi::SECRET_MAX as u64 + 2)
        .read_to_end(&mut secret)
        .map_err(failed)?;
    if secret.last() == Some(&b'\n') {
        secret.pop();
    }
    let make =
        "Make one: (umask 077; dmrepl secret > FILE), and copy it to all hosts of the group.";
    if secret.is_empty() {
        return Err(Error::new(format!("{doing}: the file is empty")).hint(make));
    }
    if secret.len() > limit {
        return Err(Error::new(format!("{doing}: it is longer than {limit} bytes")).hint(make));
    }
    if secret.len() < uapi::SECRET_MIN {
        return Err(Error::new(format!(
            "{doing}: its {} bytes could be guessed, at least {} expected",
            secret.len(),
            uapi::SECRET_MIN
        ))
        .hint(make));
    }
    Ok(secret)
}

fn readable_by_others(is_file: bool, mode: u32) -> Option<String> {
    (is_file && mode & 0o077 != 0).then(|| {
        let who = if mode & 0o007 != 0 {
            "everybody"
        } else {
            "its group"
        };
        format!(
            "the secret is accessible to {who} (mode {:03o}); run chmod 600 on it",
            mode & 0o777
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn of(content: &[u8]) -> Result<Vec<u8>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        read(file.path())
    }

    #[test]
    fn one_newline_is_not_part_of_the_secret() {
        assert_eq!(of(b"0123456789abcdef\n").unwrap(), b"0123456789abcdef");
        assert_eq!(of(b"0123456789abcdef\n\n").unwrap(), b"0123456789abcdef\n");
        assert_eq!(
            of(b" \x00binary\xff 0123456 ").unwrap(),
            b" \x00binary\xff 0123456 "
        );
    }

    #[test]
    fn lengths() {
        assert!(of(b"").unwrap_err().to_string().contains("empty"));
        assert!(of(b"\n").unwrap_err().to_string().contains("empty"));
        let short = of(b"123456789abcdef\n").unwrap_err().to_string();
        assert!(short.contains("its 15 bytes could be guessed"), "{short}");
        assert!(of(b"0123456789abcdef").is_ok());
        assert_eq!(of(&[b'x'; 256]).unwrap().len(), 256);
        assert_eq!(of(&[&[b'x'; 256][..], b"\n"].concat()).unwrap().len(), 256);
        assert!(of(&[b'x'; 257])
            .unwrap_err()
            .to_string()
            .contains("longer than 256"));
        assert!(of(&[b'x'; 100_000])
            .unwrap_err()
            .to_string()
            .contains("longer than 256"));
    }

    #[test]
    fn a_new_secret_is_random_and_can_be_used() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_eq!(one.len(), 2 * NEW_BYTES);
        assert!(one != two && one.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(of(format!("{one}\n").as_bytes()).unwrap(), one.as_bytes());
    }

    #[test]
    fn permissions() {
        assert_eq!(readable_by_others(true, 0o100_600), None);
        assert_eq!(readable_by_others(true, 0o100_400), None);
        assert!(readable_by_others(true, 0o100_644)
            .unwrap()
            .contains("everybody (mode 644)"));
        assert!(readable_by_others(true, 0o100_640)
            .unwrap()
            .contains("its group"));
        // A pipe or terminal has no mode worth talking about.
        assert_eq!(readable_by_others(false, 0o666), None);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = read(Path::new("/nonexistent/key")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/key"), "{error}");
        assert!(read(Path::new("/"))
            .unwrap_err()
            .to_string()
            .contains("directory"));
    }
}
