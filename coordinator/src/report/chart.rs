//! Line charts as inline SVG. Colours come from the page's style, so that they follow light and dark.

use std::fmt::Write;

use super::html::{escape, short};

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 22.0;

/// Points drawn at most; more are averaged.
const MOST: usize = 300;

/// One line of a chart.
pub(super) struct Line {
    /// Name in the legend.
    pub label: String,
    /// Points (x, y), in order of x.
    pub points: Vec<(f64, f64)>,
    /// 95 % intervals of the points, if they have them: whiskers.
    pub intervals: Vec<(f64, f64)>,
    /// Whether the points are noisy: a bold line then shows their running mean.
    pub noisy: bool,
}

/// A chart: title, what its x axis counts, and its lines. None when there is nothing to draw.
pub(super) fn chart(title: &str, meaning: &str, lines: &[Line]) -> Option<String> {
    let all = || lines.iter().flat_map(|l| &l.points);
    let finite = all().all(|(x, y)| x.is_finite() && y.is_finite());
    if all().next().is_none() || !finite {
        return None;
    }
    let spread = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)))
    };
    let (x0, mut x1) = spread(&mut all().map(|p| p.0));
    let whiskers = lines.iter().flat_map(|l| &l.intervals).flat_map(|(a, b)| [*a, *b]);
    let (mut y0, mut y1) = spread(&mut all().map(|p| p.1).chain(whiskers));
    if x1 <= x0 {
        x1 = x0 + 1.0;
    }
    // A flat line gets room around it, else rounding would look like a mountain; and a line that starts
    // near zero starts at zero.
    let size = y0.abs().max(y1.abs());
    if y1 - y0 <= 2e-3 * size {
        let room = if size == 0.0 { 1.0 } else { size * 0.1 };
        (y0, y1) = (if size == 0.0 { 0.0 } else { y0 - room }, y1 + room);
    } else if y0 > 0.0 && y0 < 0.25 * y1 {
        y0 = 0.0;
    }
    let sx = |x: f64| LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
    let sy = |y: f64| HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);

    let last = lines.iter().filter_map(|l| l.points.last()).next_back().map_or(0.0, |p| p.1);
    let mut svg = String::new();
    // Writing to a String cannot fail, so the results below say nothing.
    let _ = write!(
        svg,
        "<figure class=\"chart\"><figcaption><b>{}</b><span>{}</span></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}: last value {}\">",
        escape(title),
        escape(meaning),
        escape(title),
        short(last)
    );
    for i in 0..=2 {
        let y = y0 + (y1 - y0) * f64::from(i) / 2.0;
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            sy(y),
            sy(y),
            LEFT - 6.0,
            sy(y) + 3.5,
            short(y)
        );
    }
    for (x, anchor) in [(x0, "start"), (x1, "end")] {
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">step {x:.0}</text>",
            sx(x),
            HEIGHT - 6.0
        );
    }
    for (i, line) in lines.iter().enumerate() {
        draw(&mut svg, line, i + 1, &sx, &sy);
    }
    svg.push_str("</svg>");
    if lines.len() > 1 {
        svg.push_str("<div class=\"legend\">");
        for (i, line) in lines.iter().enumerate() {
            let _ = write!(svg, "<span class=\"key c{}\">{}</span>", i + 1, escape(&line.label));
        }
        svg.push_str("</div>");
    }
    svg.push_str("</figure>");
    Some(svg)
}

fn draw(
    svg: &mut String,
    line: &Line,
    colour: usize,
    sx: &impl Fn(f64) -> f64,
    sy: &impl Fn(f64) -> f64,
) {
    let path = |points: &[(f64, f64)]| -> String {
        points.iter().map(|(x, y)| format!("{:.1},{:.1} ", sx(*x), sy(*y))).collect()
    };
    let points = thinned(&line.points);
    if line.noisy && points.len() > 20 {
        // The raw line shows the noise, the bold one the course.
        let _ = write!(svg, "<polyline class=\"raw c{colour}\" points=\"{}\"/>", path(&points));
        let _ = write!(
            svg,
            "<polyline class=\"line c{colour}\" points=\"{}\"/>",
            path(&smooth(&points))
        );
        return;
    }
    let _ = write!(svg, "<polyline class=\"line c{colour}\" points=\"{}\"/>", path(&points));
    for ((x, _), (low, high)) in line.points.iter().zip(&line.intervals) {
        let _ = write!(
            svg,
            "<line class=\"whisker c{colour}\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.1}\" y2=\"{2:.1}\"/>",
            sx(*x),
            sy(*low),
            sy(*high)
        );
    }
    if line.intervals.is_empty() && points.len() > 20 {
        return;
    }
    for (x, y) in &points {
        let _ = write!(
            svg,
            "<circle class=\"dot c{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>step {x:.0}: {}</title></circle>",
            sx(*x),
            sy(*y),
            short(*y)
        );
    }
}

/// At most [`MOST`] points: means of equal runs of neighbours.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MOST).max(1);
    points
        .chunks(size)
        .map(|chunk| {
            let n = chunk.len() as f64;
            (chunk.iter().map(|p| p.0).sum::<f64>() / n, chunk.iter().map(|p| p.1).sum::<f64>() / n)
        })
        .collect()
}

/// Centred mean over about a tenth of the line.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() / 20).max(1);
    (0..points.len())
        .map(|i| {
            let window = &points[i.saturating_sub(reach)..(i + reach + 1).min(points.len())];
            (points[i].0, window.iter().map(|p| p.1).sum::<f64>() / window.len() as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)]) -> Line {
        Line { label: "a".into(), points: points.to_vec(), intervals: Vec::new(), noisy: true }
    }

    #[test]
    fn nothing_and_what_is_not_finite_is_not_drawn() {
        assert!(chart("t", "m", &[]).is_none());
        assert!(chart("t", "m", &[line(&[])]).is_none());
        assert!(chart("t", "m", &[line(&[(1.0, f64::NAN)])]).is_none());
    }

    #[test]
    fn one_point_and_flat_lines_are_drawn_with_finite_places() {
        for points in [vec![(1.0, 0.0)], vec![(1.0, 3.0), (2.0, 3.0)], vec![(5.0, -2.0)]] {
            let svg = chart("t", "m", &[line(&points)]).expect("there are points");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn long_lines_are_thinned_without_losing_their_mean() {
        let points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), 0.5)).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= MOST && thin.iter().all(|p| (p.1 - 0.5).abs() < 1e-9));
    }
}
