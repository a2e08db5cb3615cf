//! `report.html`: one page that needs nothing else, made from the run directory alone.

mod accuracy;
mod chart;
mod curves;
mod facts;
mod gallery;
mod html;
mod page;
mod picture;
mod story;

pub use page::write;
