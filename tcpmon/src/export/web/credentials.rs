//! The Authorization header of basic authentication (RFC 7617).

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The name and the password in `Basic dXNlcjpwYXNz`.
pub(crate) fn credentials(value: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut name = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = name.iter().position(|&byte| byte == b':')?;
    let password = name.split_off(colon + 1);
    name.pop();
    Some((String::from_utf8(name).ok()?, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(text: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(text)).into_bytes()
    }

    #[test]
    fn credentials_are_read_as_rfc_7617_has_them() {
        for (value, expected) in [
            (basic("user:pass"), Some(("user", "pass"))),
            (basic("user:pa:ss"), Some(("user", "pa:ss"))),
            (basic(":"), Some(("", ""))),
            (basic("user"), None),
            (b"bAsIC dXNlcjpwYXNz".to_vec(), Some(("user", "pass"))),
            (b"Bearer dXNlcjpwYXNz".to_vec(), None),
            (b"Basic ?".to_vec(), None),
            (b"Basic".to_vec(), None),
            (b"".to_vec(), None),
        ] {
            let read = credentials(&value);
            let expected = expected.map(|(user, pass)| (user.to_owned(), pass.as_bytes().to_vec()));
            assert_eq!(read, expected, "{:?}", String::from_utf8_lossy(&value));
        }
    }
}
