//! Text into HTML. Everything that comes from a file goes through [`escape`].

/// Text that is safe in HTML content and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A share as per cent with one decimal: "81.2".
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// A difference of shares in points, signed: "+12.5", "−0.4".
pub(super) fn points(difference: f64) -> String {
    let value = format!("{:.1}", 100.0 * difference.abs());
    if value == "0.0" {
        return "±0.0".into();
    }
    format!("{}{value}", if difference < 0.0 { "−" } else { "+" })
}

/// A number with about three significant digits, for axes: "0.0123", "12.3", "3.0e-6".
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        a if a < 1e-3 => format!("{value:.1e}"),
        a if a < 0.1 => format!("{value:.4}"),
        a if a < 1.0 => format!("{value:.3}"),
        a if a < 10.0 => format!("{value:.2}"),
        a if a < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_a_file_can_become_markup() {
        let text = "<img src=x onerror=\"a\"> & 'b'";
        assert_eq!(escape(text), "&lt;img src=x onerror=&quot;a&quot;&gt; &amp; &#39;b&#39;");
    }

    #[test]
    fn differences_carry_their_sign() {
        let all = [0.125, -0.004, 0.0004, -0.0004].map(points);
        assert_eq!(all, ["+12.5", "−0.4", "±0.0", "±0.0"]);
    }
}
