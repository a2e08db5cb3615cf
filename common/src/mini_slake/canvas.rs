//! A grey picture to draw ellipses on, in fractions of its side.

/// Square grey picture, row by row; 0 is black, 1 is white.
pub(super) struct Canvas {
    side: usize,
    pixels: Vec<f32>,
}

impl Canvas {
    pub fn new(side: usize, grey: f64) -> Self {
        Self { side, pixels: vec![grey as f32; side * side] }
    }

    /// Fills an ellipse.
    pub fn ellipse(&mut self, centre: (f64, f64), radii: (f64, f64), grey: f64) {
        self.fill(centre, radii, grey, |x, y| x * x + y * y <= 1.0);
    }

    /// The upper part of an ellipse's line, `width` thick, that spans 140 degrees: a rib.
    pub fn arch(&mut self, centre: (f64, f64), radii: (f64, f64), width: f64, grey: f64) {
        let inner = ((radii.0 - width) / radii.0, (radii.1 - width) / radii.1);
        let lowest = -(20f64.to_radians().sin());
        self.fill(centre, radii, grey, |x, y| {
            let outside = (x / inner.0).powi(2) + (y / inner.1).powi(2) > 1.0;
            x * x + y * y <= 1.0 && outside && y <= lowest
        });
    }

    /// Fills an upright rectangle.
    pub fn rectangle(&mut self, centre: (f64, f64), radii: (f64, f64), grey: f64) {
        self.fill(centre, radii, grey, |_, _| true);
    }

    /// Fills the pixels whose centre lies `inside`, which is asked with coordinates in [-1, 1] within the
    /// bounding box.
    fn fill(
        &mut self,
        centre: (f64, f64),
        radii: (f64, f64),
        grey: f64,
        inside: impl Fn(f64, f64) -> bool,
    ) {
        if radii.0 <= 0.0 || radii.1 <= 0.0 {
            return;
        }
        let span = |centre: f64, radius: f64| {
            let side = self.side as f64;
            let first = ((centre - radius) * side).floor().clamp(0.0, side) as usize;
            let end = ((centre + radius) * side).ceil().clamp(0.0, side) as usize;
            first..end
        };
        let place = |i: usize, centre: f64, radius: f64| {
            ((i as f64 + 0.5) / self.side as f64 - centre) / radius
        };
        for row in span(centre.1, radii.1) {
            let y = place(row, centre.1, radii.1);
            for column in span(centre.0, radii.0) {
                let x = place(column, centre.0, radii.0);
                if x.abs() <= 1.0 && y.abs() <= 1.0 && inside(x, y) {
                    self.pixels[row * self.side + column] = grey as f32;
                }
            }
        }
    }

    /// The picture at half the side, each pixel the mean of four: edges drawn at twice the size come out
    /// anti-aliased. `[side / 2, side / 2]`, row by row.
    pub fn halved(&self) -> Vec<f32> {
        let half = self.side / 2;
        let at = |row: usize, column: usize| self.pixels[row * self.side + column];
        (0..half * half)
            .map(|i| {
                let (row, column) = (i / half * 2, i % half * 2);
                let top = at(row, column) + at(row, column + 1);
                let bottom = at(row + 1, column) + at(row + 1, column + 1);
                (top + bottom) / 4.0
            })
            .collect()
    }
}
