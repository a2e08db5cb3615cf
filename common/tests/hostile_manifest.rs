//! A manifest that was damaged, or written by somebody else, is an error and never a panic: the run then
//! falls back to an earlier checkpoint.

use medevo_common::manifest::Manifest;
use proptest::prelude::*;

const GOOD: &str = r#"{"format":1,"run_id":"r","step":40,"policy":40,"position":{"stage":1,"done":40},
"config":"ab","seed":7,"holding":"cd","reference":null,"files":[{"name":"model.safetensors","bytes":12,
"digest":"ef"}],"written_at":1700000000}"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_a_manifest_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = serde_json::from_slice::<Manifest>(&bytes);
    }

    #[test]
    fn a_damaged_manifest_is_a_manifest_or_an_error(
        at in 0..GOOD.len(), byte in any::<u8>(), cut in 0..GOOD.len() + 1, nested in 0_usize..3,
    ) {
        let mut bytes = GOOD.as_bytes().to_vec();
        bytes[at] = byte;
        bytes.truncate(cut);
        let deep = "[".repeat(nested * 100_000);
        bytes.splice(at.min(cut)..at.min(cut), deep.bytes());
        let _ = serde_json::from_slice::<Manifest>(&bytes);
    }
}
