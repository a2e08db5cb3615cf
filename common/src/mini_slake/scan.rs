//! Draws a scan: anatomy and lesions first, then the look of the scanner.

use super::{
    anatomy::{Finding, LESIONS, MODALITIES, REGIONS},
    canvas::Canvas,
    random::Random,
};

/// Side of a scan, pixels.
pub(super) const SIDE: usize = 84;

/// How the scans of a hospital look: ranges to draw from, each (low, high).
pub(super) struct Look {
    pub contrast: (f64, f64),
    pub brightness: (f64, f64),
    pub gamma: (f64, f64),
    /// Standard deviation of the noise, after windowing.
    pub noise: (f64, f64),
    /// Standard deviation of the blur, pixels.
    pub blur: (f64, f64),
    /// Largest shift of the anatomy in either direction, as a fraction of the side.
    pub shift: f64,
    /// Size of the anatomy.
    pub scale: (f64, f64),
}

/// The labelled hospital: clean scans.
pub(super) const SOURCE: Look = Look {
    contrast: (0.95, 1.05),
    brightness: (-0.02, 0.02),
    gamma: (0.95, 1.05),
    noise: (0.02, 0.04),
    blur: (0.0, 0.5),
    shift: 0.03,
    scale: (0.94, 1.06),
};

/// The hospital without labels: an older, noisy scanner.
pub(super) const TARGET: Look = Look {
    contrast: (0.9, 1.0),
    brightness: (-0.03, 0.03),
    gamma: (0.95, 1.1),
    noise: (0.18, 0.28),
    blur: (0.0, 0.5),
    shift: 0.04,
    scale: (0.92, 1.08),
};

/// A scan and what it shows; grey values 0 to 255, `[SIDE, SIDE]` row by row.
pub(super) fn scan(random: &mut Random, look: &Look) -> (Vec<u8>, Finding) {
    let region = random.choice(&REGIONS);
    let finding = Finding {
        region,
        modality: random.choice(&MODALITIES),
        organ: random.choice(region.organs),
        lesion: random.choice(&LESIONS),
    };
    let clean = anatomy(random, &finding, look);
    (expose(random, clean, &finding, look), finding)
}

/// Outline, organs, bones and lesions at twice the side, box-filtered down to `[SIDE, SIDE]`.
fn anatomy(random: &mut Random, finding: &Finding, look: &Look) -> Vec<f32> {
    let Finding { region, modality, .. } = *finding;
    let shift =
        (random.within((-look.shift, look.shift)), random.within((-look.shift, look.shift)));
    let scale = random.within(look.scale);
    let moved =
        |(x, y): (f64, f64)| (0.5 + (x - 0.5) * scale + shift.0, 0.5 + (y - 0.5) * scale + shift.1);
    let sized = |(x, y): (f64, f64)| (x * scale, y * scale);
    let mut canvas = Canvas::new(2 * SIDE, modality.background);

    canvas.ellipse(moved((0.5, 0.5)), sized(region.outline), modality.rim);
    // A skull is thicker than a chest wall.
    let rim = modality.rim_width * if region.name == "head" { 1.6 } else { 1.0 };
    let inside = (region.outline.0 - rim, region.outline.1 - rim);
    canvas.ellipse(moved((0.5, 0.5)), sized(inside), modality.body);
    for organ in region.organs {
        let size = random.within((0.92, 1.08));
        let grey = modality.grey(organ.tissue) + random.within((-0.03, 0.03));
        let radii = sized((organ.radii.0 * size, organ.radii.1 * size));
        canvas.ellipse(moved(organ.centre), radii, grey);
    }
    match (modality.projection, region.name) {
        (_, "head") => {}
        (true, _) => {
            for rib in 0..5 {
                let top = 0.2 + 0.14 * f64::from(rib) + shift.1;
                let grey = (modality.body + 0.16).min(1.0);
                canvas.arch((0.5, top + 0.125), (0.42, 0.125), 1.0 / SIDE as f64, grey);
            }
            let spine = modality.body + 0.12;
            canvas.rectangle((0.5 + shift.0, 0.525), (0.025, 0.425), spine);
        }
        (false, name) => {
            let height = if name == "chest" { 0.82 } else { 0.80 };
            canvas.ellipse(moved((0.5, height)), sized((0.05, 0.05)), modality.rim);
        }
    }
    let lesion = finding.lesion;
    for place in lesion_places(random, finding) {
        let radius = lesion.radius;
        canvas.ellipse(moved(place), sized((radius, radius)), 1.0);
        if lesion.hollow {
            canvas.ellipse(moved(place), sized((0.62 * radius, 0.62 * radius)), 0.0);
        }
    }
    canvas.halved()
}

/// Centres of one to three lesions within the organ that do not touch each other. Fewer than drawn where
/// the organ has no room.
fn lesion_places(random: &mut Random, finding: &Finding) -> Vec<(f64, f64)> {
    const TRIES: usize = 200;
    let (organ, radius) = (finding.organ, finding.lesion.radius);
    let wanted = *random.choice(&finding.lesion.counts);
    let reach = |organ_radius: f64| (organ_radius - 0.6 * radius).max(0.03);
    let mut places: Vec<(f64, f64)> = Vec::with_capacity(wanted);
    for _ in 0..TRIES {
        let (sin, cos) = random.within((0.0, std::f64::consts::TAU)).sin_cos();
        let distance = random.unit().sqrt();
        let x = organ.centre.0 + distance * reach(organ.radii.0) * cos;
        let y = organ.centre.1 + distance * reach(organ.radii.1) * sin;
        if places.iter().all(|(u, v)| (x - u).hypot(y - v) > 2.05 * radius) {
            places.push((x, y));
        }
        if places.len() == wanted {
            break;
        }
    }
    places
}

/// What the scanner makes of the anatomy: blur, bias field, gamma, contrast, window and noise.
fn expose(random: &mut Random, clean: Vec<f32>, finding: &Finding, look: &Look) -> Vec<u8> {
    let mut image = blurred(clean, random.within(look.blur));
    if finding.modality.bias_field {
        let slope = (random.within((-0.25, 0.25)), random.within((-0.25, 0.25)));
        for (i, pixel) in image.iter_mut().enumerate() {
            let x = (i % SIDE) as f64 / SIDE as f64 - 0.5;
            let y = (i / SIDE) as f64 / SIDE as f64 - 0.5;
            *pixel *= (1.0 + slope.0 * x + slope.1 * y) as f32;
        }
    }
    let gamma = random.within(look.gamma) as f32;
    let contrast = random.within(look.contrast) as f32;
    let brightness = random.within(look.brightness) as f32;
    let noise = random.within(look.noise) as f32;
    let mut grey = Vec::with_capacity(image.len());
    for pair in image.chunks(2) {
        let (first, second) = random.normals();
        for (pixel, normal) in pair.iter().zip([first, second]) {
            let shown = (pixel.clamp(0.0, 1.0).powf(gamma) - 0.4) * contrast + 0.4 + brightness;
            // The window keeps most of the noise within black and white.
            let windowed = 0.22 + 0.56 * shown + noise * normal as f32;
            grey.push((windowed.clamp(0.0, 1.0) * 255.0).round() as u8);
        }
    }
    grey
}

/// Gaussian blur in both directions; the edge repeats outwards.
fn blurred(image: Vec<f32>, sigma: f64) -> Vec<f32> {
    const REACH: isize = 2;
    if sigma <= 0.05 {
        return image;
    }
    let weight = |offset: isize| (-0.5 * (offset as f64 / sigma).powi(2)).exp() as f32;
    let total: f32 = (-REACH..=REACH).map(weight).sum();
    let kernel: Vec<f32> = (-REACH..=REACH).map(|offset| weight(offset) / total).collect();
    let edge = SIDE as isize - 1;
    let pass = |image: &[f32], down: bool| -> Vec<f32> {
        (0..SIDE * SIDE)
            .map(|i| {
                let (row, column) = ((i / SIDE) as isize, (i % SIDE) as isize);
                let sample = |offset: isize| {
                    let (row, column) = if down {
                        ((row + offset).clamp(0, edge), column)
                    } else {
                        (row, (column + offset).clamp(0, edge))
                    };
                    image[row as usize * SIDE + column as usize]
                };
                (-REACH..=REACH).zip(&kernel).map(|(offset, weight)| weight * sample(offset)).sum()
            })
            .collect()
    };
    pass(&pass(&image, false), true)
}
