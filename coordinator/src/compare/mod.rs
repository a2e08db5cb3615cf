//! Base against adapted: which evaluations of a run are held against each other, and the final table over
//! several runs.

mod rows;
mod selection;
mod table;

pub use rows::{Figures, Row, Score, rows};
pub use selection::Selection;
pub use table::{render, table};
