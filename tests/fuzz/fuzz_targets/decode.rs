//! Everything that comes over the control plane.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medevo_rpc::codec::{decode_answer, decode_request};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_request(bytes);
    let _ = decode_answer(bytes);
});
