//! Seeds of an array of runs: "0-4", "1,3,7", "0-9%2".

/// Most seeds: more than a run has ever needed, and as many as Slurm's arrays usually have.
const MOST: usize = 1000;

/// The seeds that a text names, in order, each once. What stands after `%` (how many at a time) is Slurm's.
///
/// # Errors
/// A sentence with what is possible.
pub(super) fn parse(text: &str) -> Result<Vec<u64>, String> {
    let wrong = || format!("--seeds {text:?}: write 0-4, 1,3,7, or 0-9%2 for two at a time");
    let (list, at_a_time) = text.split_once('%').unwrap_or((text, "1"));
    at_a_time.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
    let mut seeds = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last - first >= MOST as u64 || seeds.len() >= MOST {
            return Err(wrong());
        }
        seeds.extend(first..=last);
    }
    let mut once = seeds.clone();
    once.sort_unstable();
    once.dedup();
    if once.len() == seeds.len() { Ok(seeds) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn seeds_are_read_as_slurm_reads_an_array() {
        assert_eq!(parse("0-4"), Ok(vec![0, 1, 2, 3, 4]));
        assert_eq!(parse("7,1-2%2"), Ok(vec![7, 1, 2]));
        for wrong in ["", "a", "4-0", "1,1", "0-4%0", "0-4%", "-1", "0-99999999", "1 2"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
