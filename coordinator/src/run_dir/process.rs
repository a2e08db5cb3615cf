//! Which process a status speaks of, told apart from a later one with the same number.

use std::fs;

/// This machine's name.
#[must_use]
pub fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

/// When a live process of this machine began, in ticks since the machine started. None: there is no such process, or
/// it is dead and nobody has reaped it.
#[must_use]
pub fn born(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold any character. Behind it: state is field 3, the start field 22.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    match *fields.first()? {
        "Z" | "X" => None,
        _ => fields.get(19)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_birth_while_it_lives() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let first = born(child.id()).expect("alive");
        assert_eq!(born(child.id()), Some(first));
        child.kill().expect("killed");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while born(child.id()).is_some() {
            assert!(std::time::Instant::now() < until, "a zombie counts as dead");
        }
        child.wait().expect("reaped");
        let own = born(std::process::id()).expect("this one lives");
        assert!(own <= first, "the parent was there before: {own}, {first}");
    }
}
