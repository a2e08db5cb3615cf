//! FPL pseudo labels, HSR rewards, advantages: pure functions on slices.
