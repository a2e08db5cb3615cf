//! What a schematic scan can show: regions, organs, modalities and lesions.

/// A body region with its outline and organs. Positions and radii are fractions of the scan's side; as a
/// radiologist sees it, the patient's left is on the right of the image.
pub(super) struct Region {
    pub name: &'static str,
    /// Radii of the body's outline, horizontal and vertical, around the centre.
    pub outline: (f64, f64),
    pub organs: &'static [Organ],
}

/// An organ, drawn as an ellipse.
pub(super) struct Organ {
    pub name: &'static str,
    pub centre: (f64, f64),
    pub radii: (f64, f64),
    pub tissue: Tissue,
}

/// Which grey value of the modality an organ has.
#[derive(Clone, Copy)]
pub(super) enum Tissue {
    Air,
    Dense,
    Soft,
}

/// A modality with its grey values, 0 (black) to 1 (white).
pub(super) struct Modality {
    pub name: &'static str,
    /// As SLAKE's `modality` field spells it.
    pub label: &'static str,
    pub background: f64,
    pub body: f64,
    /// The body's rim, and the vertebra.
    pub rim: f64,
    /// Thickness of the rim, as a fraction of the side.
    pub rim_width: f64,
    pub air: f64,
    pub dense: f64,
    pub soft: f64,
    /// A projection shows ribs and spine.
    pub projection: bool,
    /// A coil's sensitivity falls off across the image.
    pub bias_field: bool,
}

/// A kind of lesion.
pub(super) struct Lesion {
    pub name: &'static str,
    /// Radius as a fraction of the side.
    pub radius: f64,
    /// A cyst has a dark inside.
    pub hollow: bool,
    /// How many there are, to draw from.
    pub counts: [usize; 3],
}

const fn organ(name: &'static str, centre: (f64, f64), radii: (f64, f64), tissue: Tissue) -> Organ {
    Organ { name, centre, radii, tissue }
}

pub(super) const REGIONS: [Region; 3] = [
    Region {
        name: "chest",
        outline: (0.47, 0.40),
        organs: &[
            organ("right lung", (0.30, 0.50), (0.15, 0.27), Tissue::Air),
            organ("left lung", (0.70, 0.50), (0.15, 0.27), Tissue::Air),
            organ("heart", (0.52, 0.60), (0.10, 0.13), Tissue::Dense),
        ],
    },
    Region {
        name: "abdomen",
        outline: (0.46, 0.42),
        organs: &[
            organ("liver", (0.32, 0.36), (0.19, 0.15), Tissue::Dense),
            organ("spleen", (0.73, 0.36), (0.11, 0.13), Tissue::Soft),
            organ("right kidney", (0.32, 0.68), (0.10, 0.12), Tissue::Dense),
            organ("left kidney", (0.68, 0.68), (0.10, 0.12), Tissue::Dense),
        ],
    },
    Region {
        name: "head",
        outline: (0.38, 0.46),
        organs: &[
            organ("right hemisphere", (0.33, 0.44), (0.15, 0.24), Tissue::Dense),
            organ("left hemisphere", (0.67, 0.44), (0.15, 0.24), Tissue::Dense),
            organ("cerebellum", (0.50, 0.78), (0.17, 0.10), Tissue::Soft),
        ],
    },
];

pub(super) const MODALITIES: [Modality; 3] = [
    Modality {
        name: "ct",
        label: "CT",
        background: 0.02,
        body: 0.36,
        rim: 0.72,
        rim_width: 0.035,
        air: 0.10,
        dense: 0.50,
        soft: 0.56,
        projection: false,
        bias_field: false,
    },
    Modality {
        name: "mri",
        label: "MRI",
        background: 0.02,
        body: 0.22,
        rim: 0.48,
        rim_width: 0.015,
        air: 0.05,
        dense: 0.40,
        soft: 0.34,
        projection: false,
        bias_field: true,
    },
    Modality {
        name: "x-ray",
        label: "X-Ray",
        background: 0.24,
        body: 0.48,
        rim: 0.54,
        rim_width: 0.0,
        air: 0.18,
        dense: 0.60,
        soft: 0.56,
        projection: true,
        bias_field: false,
    },
];

pub(super) const LESIONS: [Lesion; 3] = [
    Lesion { name: "nodule", radius: 0.050, hollow: false, counts: [1, 2, 3] },
    Lesion { name: "mass", radius: 0.105, hollow: false, counts: [1, 1, 2] },
    Lesion { name: "cyst", radius: 0.080, hollow: true, counts: [1, 2, 3] },
];

impl Region {
    /// SLAKE's `location` field: the name with a capital letter.
    pub fn label(&self) -> String {
        let (first, rest) = self.name.split_at(1);
        first.to_uppercase() + rest
    }
}

impl Modality {
    pub fn grey(&self, tissue: Tissue) -> f64 {
        match tissue {
            Tissue::Air => self.air,
            Tissue::Dense => self.dense,
            Tissue::Soft => self.soft,
        }
    }
}

/// What one scan shows.
#[derive(Clone, Copy)]
pub(super) struct Finding {
    pub region: &'static Region,
    pub modality: &'static Modality,
    pub organ: &'static Organ,
    pub lesion: &'static Lesion,
}
