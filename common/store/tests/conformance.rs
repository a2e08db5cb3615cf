//! One suite for every store: in memory, in a file, in etcd.

mod claims;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use claims::Subject;
use medevo_store::{Embedded, Etcd, Memory, Settings, Store, StoreError};

/// Runs every claim on one kind of store.
macro_rules! conforms {
    ($kind:ident: $($claim:ident)*) => {
        mod $kind {
            $(#[test]
            fn $claim() {
                super::claims::$claim(&super::$kind());
            })*
        }
    };
}

macro_rules! all_conform {
    ($($kind:ident)*) => {
        $(conforms! { $kind:
            what_is_written_is_read
            all_guards_hold_or_nothing_is_written
            one_of_many_wins_each_compare_and_swap
            a_list_is_whole_and_in_order
            large_values_come_back_whole
            a_lease_is_renewed_and_runs_out
            a_revoked_lease_takes_its_keys_at_once
            a_write_without_a_lease_outlives_the_one_before
            a_watch_tells_what_happens_after_a_snapshot
            values_survive_reopening
            runs_do_not_see_each_other
            a_key_is_written_once_in_a_transaction
        })*
    };
}

all_conform! { memory embedded etcd }

struct InMemory(Mutex<BTreeMap<String, Memory>>);

fn memory() -> InMemory {
    InMemory(Default::default())
}

impl Subject for InMemory {
    fn open(&self, run: &str) -> Arc<dyn Store> {
        let mut runs = self.0.lock().expect("no claim panics while it opens");
        Arc::new(runs.entry(run.to_owned()).or_default().clone())
    }
}

struct InFiles(tempfile::TempDir);

fn embedded() -> InFiles {
    InFiles(tempfile::tempdir().expect("a folder"))
}

impl Subject for InFiles {
    fn open(&self, run: &str) -> Arc<dyn Store> {
        let dir = self.0.path().join(run);
        std::fs::create_dir_all(&dir).expect("a folder");
        Arc::new(Embedded::open(&dir).expect("a store"))
    }
}

struct InEtcd(medevo_tests::etcd::Etcd);

fn etcd() -> InEtcd {
    InEtcd(medevo_tests::etcd::Etcd::start(1))
}

impl Subject for InEtcd {
    fn open(&self, run: &str) -> Arc<dyn Store> {
        let settings = Settings::plain(self.0.endpoints(), "/medevo", run);
        Arc::new(Etcd::open(&settings).expect("a store"))
    }
}

#[test]
fn a_second_process_is_refused_with_a_sentence_that_names_the_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let _first = Embedded::open(dir.path()).expect("a new store");
    let second = Embedded::open(dir.path()).expect_err("the store is in use");
    assert!(matches!(second, StoreError::Busy { .. }));
    let second = second.to_string();
    assert!(second.contains("another coordinator is already running this run"), "{second}");
    assert!(second.contains(&dir.path().display().to_string()), "{second}");
}
