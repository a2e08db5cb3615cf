//! Answer normalisation, answer metrics and intervals.
