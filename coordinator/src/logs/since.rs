//! `--since`: "10m", "2h", or a moment.

use std::time::Duration;

use crate::run_dir::{now_ms, parse_rfc3339_ms, rfc3339_ms};

/// The moment from which on lines are wanted, as logs write it: so long ago, or as typed.
///
/// # Errors
/// What is possible.
pub fn parse(text: &str) -> Result<String, String> {
    if let Some(ago) = ago(text) {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Ok(rfc3339_ms(now_ms().saturating_sub(ago)));
    }
    let full = match text.trim_end_matches('Z') {
        day if day.len() == 10 => format!("{day}T00:00:00.000Z"),
        second if second.len() == 19 => format!("{second}.000Z"),
        milli => format!("{milli}Z"),
    };
    match parse_rfc3339_ms(&full) {
        Some(_) => Ok(full),
        None => {
            Err("give it as 30s, 10m, 2h, 1d, or as a moment in UTC: 2026-03-01T12:00:00".into())
        }
    }
}

fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().last().filter(char::is_ascii_alphabetic)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].parse().ok()?;
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_spans_are_read() {
        assert_eq!(parse("2026-03-01"), Ok("2026-03-01T00:00:00.000Z".into()));
        assert_eq!(parse("2026-03-01T12:00:00Z"), Ok("2026-03-01T12:00:00.000Z".into()));
        assert!(parse("10m").expect("a span") < parse("1s").expect("a span"));
        for wrong in ["", "soon", "10", "10y", "2026-03-01 12:00"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
