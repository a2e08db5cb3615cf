//! The size at which the model looks at a picture.

/// Longest edge over shortest; the reference refuses more.
const MAX_ASPECT: f64 = 200.0;

/// The height and width nearest to those given that `factor` divides, with between `min_pixels` and
/// `max_pixels` pixels, keeping the aspect ratio as well as that allows. Halves round to even, as Python's
/// `round` does (reference: `smart_resize`).
///
/// # Errors
/// If a side is 0 or one side is more than 200 times the other.
pub fn smart_resize(
    height: i64,
    width: i64,
    factor: i64,
    min_pixels: i64,
    max_pixels: i64,
) -> Result<(i64, i64), String> {
    if height <= 0 || width <= 0 {
        return Err(format!("the picture is empty ({width} x {height} pixels)"));
    }
    let aspect = height.max(width) as f64 / height.min(width) as f64;
    if aspect > MAX_ASPECT {
        return Err(format!(
            "the picture is {width} x {height} pixels, one side {aspect:.0} times the other; \
             at most {MAX_ASPECT:.0} is possible: crop it"
        ));
    }
    let (h, w, f) = (height as f64, width as f64, factor as f64);
    let near = |side: f64| (side / f).round_ties_even() as i64 * factor;
    let (near_h, near_w) = (near(h), near(w));
    if near_h * near_w > max_pixels {
        let shrink = (h * w / max_pixels as f64).sqrt();
        let down = |side: f64| factor.max((side / shrink / f).floor() as i64 * factor);
        Ok((down(h), down(w)))
    } else if near_h * near_w < min_pixels {
        let grow = (min_pixels as f64 / (h * w)).sqrt();
        let up = |side: f64| (side * grow / f).ceil() as i64 * factor;
        Ok((up(h), up(w)))
    } else {
        Ok((near_h, near_w))
    }
}

#[cfg(test)]
mod tests {
    use super::smart_resize;
    use proptest::prelude::*;

    /// Python rounds 42 / 28 = 1.5 to 2 and 70 / 28 = 2.5 to 2; rounding half up would give 3.
    #[test]
    fn halves_round_to_even() {
        assert_eq!(smart_resize(42, 70, 28, 1, 1 << 20), Ok((56, 56)));
    }

    #[test]
    fn demo_scans_keep_their_size() {
        assert_eq!(smart_resize(84, 84, 28, 3136, 1_003_520), Ok((84, 84)));
    }

    #[test]
    fn a_needle_is_refused() {
        assert!(smart_resize(1, 201, 28, 3136, 1 << 20).is_err());
        assert!(smart_resize(0, 5, 28, 3136, 1 << 20).is_err());
    }

    proptest! {
        /// A size that the factor does not divide would break the patch grid.
        #[test]
        fn sizes_are_positive_multiples_within_the_limit(h in 1i64..3000, w in 1i64..3000) {
            if let Ok((rh, rw)) = smart_resize(h, w, 28, 3136, 1_003_520) {
                prop_assert!(rh > 0 && rw > 0 && rh % 28 == 0 && rw % 28 == 0);
                // An extreme aspect may cost one row or column more than the limit, never more.
                prop_assert!(rh * rw <= 1_003_520 || rh == 28 || rw == 28);
                prop_assert!(rh * rw >= 3136);
            }
        }
    }
}
